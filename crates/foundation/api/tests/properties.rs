//! What holds for every shape of every model, with values drawn from its schema.
//!
//! A random reader fills generated types the way a codec would, so a new service is covered the
//! day it is generated. What strangers send is thrown at every reader: it may be refused, it
//! may never panic.

#[path = "goldens/xml.rs"]
mod xml;

use std::sync::OnceLock;

use bytes::Bytes;
use gantry_api::document::Document;
use gantry_api::protocol::form::{Form, FormReader};
use gantry_api::protocol::{Protocol, UNIT, json, query, timestamp};
use gantry_api::read::{OnElement, OnEntry, OnMember, ShapeReader, Trail};
use gantry_api::schema::{Kind, Member, Schema, Target, TimestampFormat};
use gantry_api::shape::{Structure, read_structure, write_structure};
use gantry_api::write::ShapeWriter;
use gantry_api::{OperationModel, ProtocolError, ServiceModel, ecr, ecs, iam, logs, sts};
use gantry_env::Timestamp;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

static SERVICES: [&ServiceModel; 5] = [
    &ecs::MODEL,
    &ecr::MODEL,
    &logs::MODEL,
    &iam::MODEL,
    &sts::MODEL,
];

type New = fn() -> Box<dyn Structure>;

fn every_shape(services: &[&'static ServiceModel]) -> Vec<(&'static OperationModel, New)> {
    let operations = services
        .iter()
        .flat_map(|service| service.operations.iter().copied());
    operations
        .flat_map(|operation| {
            [
                (operation, operation.new_input),
                (operation, operation.new_output),
            ]
        })
        .collect()
}

fn random(new: New, seed: u64) -> Box<dyn Structure> {
    let mut structure = new();
    let mut reader = RandomReader {
        state: seed,
        depth: 0,
        trail: Trail::default(),
    };
    read_structure(structure.as_mut(), &mut reader).expect("a random value");
    structure
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn json_reads_what_it_wrote(seed in any::<u64>()) {
        for (operation, new) in every_shape(&SERVICES) {
            let before = json::write(random(new, seed).as_ref());
            let mut read = new();
            json::read(&before, read.as_mut()).unwrap_or_else(|error| panic!("{}: {error}", operation.name));
            let after = json::write(read.as_ref());
            prop_assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&after));
        }
    }

    #[test]
    fn a_form_is_read_as_it_was_written(seed in any::<u64>()) {
        for (operation, new) in every_shape(&[&iam::MODEL, &sts::MODEL]) {
            let read = |text: &str| {
                let form = Form::parse(text.as_bytes()).expect("a form");
                let mut read = new();
                query::read(&form, read.as_mut())
                    .unwrap_or_else(|error| panic!("{}: {error}", operation.name));
                form_of(read.as_ref())
            };
            let before = form_of(random(new, seed).as_ref());
            let after = read(&before);
            // An element without members leaves no trace, so numbers may shift once; no value
            // is lost, and what was read once reads the same ever after.
            prop_assert_eq!(values_of(&before), values_of(&after));
            prop_assert_eq!(&after, &read(&after));
        }
    }

    #[test]
    fn xml_is_well_formed(seed in any::<u64>()) {
        for (operation, new) in every_shape(&SERVICES) {
            let output = random(new, seed);
            let reply = query::QUERY.write_response(&iam::MODEL, operation, output.as_ref(), "id");
            let text = String::from_utf8(reply.body.to_vec()).expect("UTF-8");
            xml::same(&text, &text).unwrap_or_else(|error| panic!("{}: {error}", operation.name));
        }
    }

    #[test]
    fn validation_and_debug_take_any_value(seed in any::<u64>()) {
        for (_, new) in every_shape(&SERVICES) {
            let value = random(new, seed);
            if let Err(errors) = gantry_api::validate::validate(value.as_ref()) {
                assert!(errors.to_string().contains("failed to satisfy constraint"), "{errors}");
            }
            assert!(format!("{value:?}").starts_with(value.schema().name));
        }
    }

    #[test]
    fn damaged_json_never_panics(seed in any::<u64>(), at in any::<usize>(), with in any::<[u8; 3]>()) {
        for (_, new) in every_shape(&SERVICES) {
            let mut body = json::write(random(new, seed).as_ref());
            for (offset, byte) in with.into_iter().enumerate() {
                let length = body.len();
                body[at.wrapping_add(offset * 7) % length] = byte;
            }
            let _ = json::read(&body, new().as_mut());
            let _ = json::read(&body[..at % body.len()], new().as_mut());
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z.0-9=&%+\\[\\]{}\":,-]{0,120}") {
        for (_, new) in every_shape(&SERVICES) {
            for body in [bytes.as_slice(), text.as_bytes()] {
                let _ = json::read(body, new().as_mut());
                if let Ok(form) = Form::parse(body) {
                    let _ = query::read(&form, new().as_mut());
                }
            }
        }
        let _ = json::read_error(400, &bytes);
        let _ = timestamp::parse(&text);
        let _ = timestamp::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_timestamp_can_be_written(ms in any::<i64>()) {
        for format in [TimestampFormat::EpochSeconds, TimestampFormat::Iso8601, TimestampFormat::HttpDate] {
            assert!(!timestamp::format(Timestamp::from_millis(ms), format).is_empty());
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_not_overflowed() {
    let cell: &'static OnceLock<&'static Schema> = Box::leak(Box::default());
    let mut member = Member::new("nested", &UNIT);
    member.target = Target::Late(cell);
    let members: &'static [Member] = Box::leak(vec![member].into_boxed_slice());
    let schema: &'static Schema = Box::leak(Box::new(Schema::structure("Nested", members)));
    cell.set(schema).expect("set once");
    for (depth, is_fine) in [(20, true), (100, false), (50_000, false)] {
        let text = format!(
            "{}{}",
            "{\"nested\":".repeat(depth),
            "{}".to_owned() + &"}".repeat(depth)
        );
        let outcome = json::read(text.as_bytes(), &mut Document::new(schema));
        assert_eq!(outcome.is_ok(), is_fine, "{depth}: {outcome:?}");
        let text = format!("{}x=1", "nested.".repeat(depth));
        let form = Form::parse(text.as_bytes()).expect("a form");
        let outcome = query::read(&form, &mut Document::new(schema));
        assert_eq!(outcome.is_ok(), is_fine, "{depth}: {outcome:?}");
    }
    // What the schema does not have is skipped without recursion, however deep it is.
    let unknown = format!(
        "{{\"nobody\":{}{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert!(json::read(unknown.as_bytes(), &mut ecs::RunTaskRequest::default()).is_ok());
}

/// Serde is a second way to the same form: rows hold generated types.
#[test]
fn a_generated_type_survives_a_row() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(tag = "kind")]
    enum Row {
        Registered {
            definition: ecs::TaskDefinition,
            launch: ecs::LaunchType,
            at: Vec<ecs::Tag>,
        },
    }
    let row = Row::Registered {
        definition: ecs::TaskDefinition {
            family: Some("web".to_owned()),
            registered_at: Some(Timestamp::from_millis(1_576_540_098_123)),
            container_definitions: Some(vec![ecs::ContainerDefinition {
                name: Some("app".to_owned()),
                port_mappings: Some(Vec::new()),
                ..Default::default()
            }]),
            ..Default::default()
        },
        launch: ecs::LaunchType::from("ORBIT"),
        at: vec![ecs::Tag {
            key: Some("k".to_owned()),
            value: None,
        }],
    };
    let text = serde_json::to_string(&row).expect("written");
    assert_eq!(
        serde_json::from_str::<Row>(&text).expect("read"),
        row,
        "{text}"
    );
    let value = serde_json::to_value(&row).expect("written");
    assert_eq!(serde_json::from_value::<Row>(value).expect("read"), row);
}

#[test]
fn secrets_are_not_shown() {
    let token = ecr::AuthorizationData {
        authorization_token: Some("QVdTOnBhc3N3b3Jk".to_owned()),
        proxy_endpoint: Some("http://localhost:4566".to_owned()),
        ..Default::default()
    };
    let answer = ecr::GetAuthorizationTokenResponse {
        authorization_data: Some(vec![token]),
    };
    let shown = format!("{answer:?}");
    assert!(shown.contains("authorizationToken: <secret>"), "{shown}");
    assert!(
        shown.contains("localhost:4566") && !shown.contains("QVdT"),
        "{shown}"
    );
}

/// Draws a value for every shape it is asked for.
struct RandomReader {
    state: u64,
    depth: usize,
    trail: Trail,
}

impl RandomReader {
    /// SplitMix64: small, and good enough to choose test values.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    fn count(&mut self) -> u64 {
        if self.depth > 5 { 0 } else { self.below(4) }
    }

    fn text(&mut self) -> String {
        const LETTERS: [char; 16] = [
            'a', 'Z', '0', ' ', '"', '\\', '&', '<', '\n', '\u{1}', 'é', '漢', '🦀', '=', '+', '%',
        ];
        (0..self.below(12))
            .map(|_| LETTERS[self.below(16) as usize])
            .collect()
    }
}

impl ShapeReader for RandomReader {
    fn structure(
        &mut self,
        schema: &'static Schema,
        on_member: OnMember<'_>,
    ) -> Result<(), ProtocolError> {
        self.depth += 1;
        for (index, member) in schema.members().iter().enumerate() {
            if self.depth < 7 && (member.required || self.below(5) < 3) {
                on_member(index, self)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn list(&mut self, _: &'static Schema, on_element: OnElement<'_>) -> Result<(), ProtocolError> {
        for _ in 0..self.count() {
            on_element(self)?;
        }
        Ok(())
    }

    fn map(&mut self, _: &'static Schema, on_entry: OnEntry<'_>) -> Result<(), ProtocolError> {
        for _ in 0..self.count() {
            let key = self.text();
            on_entry(key, self)?;
        }
        Ok(())
    }

    fn string(&mut self, schema: &'static Schema) -> Result<String, ProtocolError> {
        if let Kind::Enum { values } = schema.kind
            && self.below(4) > 0
        {
            return Ok(values[self.below(values.len() as u64) as usize].to_owned());
        }
        Ok(self.text())
    }

    fn integer(&mut self, _: &'static Schema) -> Result<i32, ProtocolError> {
        Ok(self.draw() as i32)
    }

    fn long(&mut self, _: &'static Schema) -> Result<i64, ProtocolError> {
        Ok(self.draw() as i64)
    }

    fn double(&mut self, _: &'static Schema) -> Result<f64, ProtocolError> {
        Ok(match self.below(8) {
            0 => f64::NAN,
            1 => f64::NEG_INFINITY,
            _ => f64::from(self.draw() as i32) / 64.0,
        })
    }

    fn boolean(&mut self, _: &'static Schema) -> Result<bool, ProtocolError> {
        Ok(self.below(2) == 0)
    }

    fn timestamp(&mut self, _: &'static Schema) -> Result<Timestamp, ProtocolError> {
        Ok(Timestamp::from_millis(
            self.below(8_000_000_000_000) as i64 - 2_000_000_000_000,
        ))
    }

    fn blob(&mut self, _: &'static Schema) -> Result<Bytes, ProtocolError> {
        Ok(Bytes::from(self.text()))
    }

    fn document(&mut self, _: &'static Schema) -> Result<serde_json::Value, ProtocolError> {
        Ok(serde_json::json!({ "any": [self.below(9), null, self.text()] }))
    }

    fn trail(&mut self) -> &mut Trail {
        &mut self.trail
    }
}

fn values_of(form: &str) -> Vec<&str> {
    let mut values: Vec<&str> = form
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(_, value)| value)
        .collect();
    // An empty list and an absent one look alike where only structures without members stand.
    values.retain(|value| !value.is_empty());
    values.sort_unstable();
    values
}

/// A structure as a client would put it into a form.
fn form_of(structure: &dyn Structure) -> String {
    let mut writer = FormWriter::default();
    write_structure(structure, &mut writer);
    writer.pairs.sort();
    writer.pairs.join("&")
}

#[derive(Default)]
struct FormWriter {
    pairs: Vec<String>,
    /// The places of open values; the last is where the next scalar goes.
    places: Vec<String>,
    counts: Vec<(String, usize)>,
    next: Option<String>,
}

impl FormWriter {
    fn enter(&mut self) -> String {
        let place = self.next.take().unwrap_or_default();
        self.places.push(place.clone());
        place
    }

    fn put(&mut self, text: &str) {
        let place = self.next.take().expect("a place");
        let encode = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => {
                        (byte as char).to_string()
                    }
                    b' ' => "+".to_owned(),
                    other => format!("%{other:02X}"),
                })
                .collect()
        };
        self.pairs
            .push(format!("{}={}", encode(&place), encode(text)));
    }
}

impl ShapeWriter for FormWriter {
    fn begin_structure(&mut self, _: &'static Schema) {
        self.enter();
    }

    fn member(&mut self, member: &'static Member) {
        let outer = self.places.last().expect("a structure");
        self.next = Some(if outer.is_empty() {
            member.wire_name().to_owned()
        } else {
            format!("{outer}.{}", member.wire_name())
        });
    }

    fn end_structure(&mut self) {
        self.places.pop();
    }

    fn begin_list(&mut self, schema: &'static Schema, len: usize) {
        let Kind::List { element, .. } = &schema.kind else {
            panic!("no list")
        };
        if len == 0 {
            self.next = self.next.clone();
            self.put("");
            self.next = Some(String::new());
        }
        let place = self.enter();
        self.counts.push((
            format!("{place}.{}", element.location_name.unwrap_or("member")),
            0,
        ));
    }

    fn element(&mut self, _: &'static Member) {
        let (place, count) = self.counts.last_mut().expect("a list");
        *count += 1;
        self.next = Some(format!("{place}.{count}"));
    }

    fn end_list(&mut self) {
        self.counts.pop();
        self.places.pop();
    }

    fn begin_map(&mut self, _: &'static Schema, _: usize) {
        let place = self.enter();
        self.counts.push((format!("{place}.entry"), 0));
    }

    fn entry(&mut self, key: &str, key_member: &'static Member, value: &'static Member) {
        let (place, count) = self.counts.last_mut().expect("a map");
        *count += 1;
        let place = format!("{place}.{count}");
        self.next = Some(format!(
            "{place}.{}",
            key_member.location_name.unwrap_or("key")
        ));
        self.put(key);
        self.next = Some(format!(
            "{place}.{}",
            value.location_name.unwrap_or("value")
        ));
    }

    fn end_entry(&mut self) {}

    fn end_map(&mut self) {
        self.counts.pop();
        self.places.pop();
    }

    fn null(&mut self) {
        self.next = None;
    }

    fn string(&mut self, text: &str) {
        self.put(text);
    }

    fn integer(&mut self, number: i64) {
        self.put(&number.to_string());
    }

    fn double(&mut self, number: f64) {
        self.put(&number.to_string());
    }

    fn boolean(&mut self, flag: bool) {
        self.put(if flag { "true" } else { "false" });
    }

    fn timestamp(&mut self, _: &'static Schema, time: Timestamp) {
        self.put(&timestamp::format(time, TimestampFormat::Iso8601));
    }

    fn blob(&mut self, bytes: &[u8]) {
        let mut writer = gantry_api::protocol::xml::XmlWriter::default();
        writer.blob(bytes);
        self.put(&writer.into_text());
    }

    fn document(&mut self, value: &serde_json::Value) {
        self.put(&value.to_string());
    }
}

/// The reader of forms is usable on its own.
#[test]
fn gaps_in_a_forms_numbers_do_not_matter() {
    let form = Form::parse(b"RoleName=r&Tags.member.2.Key=a&Tags.member.2.Value=1&Tags.member.10.Key=b&Tags.member.10.Value=2")
        .expect("a form");
    let mut input = iam::TagRoleRequest::default();
    let mut reader = FormReader::new(&form);
    read_structure(&mut input, &mut reader).expect("read");
    let keys: Vec<&str> = input.tags.iter().map(|tag| tag.key.as_str()).collect();
    assert_eq!((input.role_name.as_str(), keys), ("r", vec!["a", "b"]));
}
