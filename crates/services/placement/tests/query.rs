//! The cluster query language: what each expression means, and that no text breaks the reader.

use std::sync::Arc;

use gantry_arn::ContainerInstanceId;
use gantry_placement::Candidate;
use gantry_placement::query::{EXPRESSION_LENGTH_MAX, parse};
use proptest::prelude::{BoxedStrategy, Just, Strategy, prop_assert_eq, prop_oneof, proptest};

fn instance() -> Candidate {
    let attributes = [
        ("ecs.instance-type", Some("t2.small")),
        ("ecs.availability-zone", Some("us-east-1a")),
        ("ecs.os-type", Some("linux")),
        ("rack", Some("7")),
        ("spot", None),
    ];
    let mut candidate = Candidate::new(ContainerInstanceId::from_random([1; 16]));
    candidate.attributes = Arc::new(
        attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
            .collect(),
    );
    candidate.agent_version = Some(Arc::from("1.105.0"));
    candidate.ec2_instance_id = Arc::from("i-abcd1234");
    candidate.registered_at_ms = 1_518_992_908_000;
    candidate.running_tasks = 3;
    candidate
        .tasks_by_group
        .insert("service:production".to_owned(), 2);
    candidate.tasks_by_group.insert("family:web".to_owned(), 1);
    candidate
}

#[test]
fn expressions_mean_what_aws_says() {
    let cases = [
        ("attribute:ecs.instance-type == t2.small", true),
        ("attribute:ecs.instance-type equals t2.small", true),
        ("attribute:ecs.instance-type != t2.small", false),
        ("attribute:ecs.instance-type not_equals 't2.large'", true),
        ("attribute:ecs.instance-type =~ t2.*", true),
        ("attribute:ecs.instance-type =~ t2", false),
        ("attribute:ecs.instance-type =~ t2.(small|large)", true),
        ("attribute:ecs.instance-type matches \"t[23]\\.s.+\"", true),
        ("attribute:ecs.instance-type !~ g2.*", true),
        ("attribute:ecs.instance-type not_matches t2.*", false),
        (
            "attribute:ecs.availability-zone in [us-east-1a, us-east-1b]",
            true,
        ),
        (
            "attribute:ecs.availability-zone in ['us-east-1a','us-east-1b']",
            true,
        ),
        (
            "attribute:ecs.availability-zone !in [us-east-1a, us-east-1b]",
            false,
        ),
        ("attribute:ecs.availability-zone not_in [us-east-1c]", true),
        ("task:group == service:production", true),
        ("not(task:group == database)", true),
        ("!(task:group == service:production)", false),
        ("task:group != family:web", false),
        ("task:group =~ family:.*", true),
        ("runningTasksCount == 3", true),
        ("runningTasksCount == 03", true),
        ("runningTasksCount < 3", false),
        ("runningTasksCount greater_than_equal 3", true),
        ("ec2InstanceId in ['i-abcd1234', 'i-wxyx7890']", true),
        ("ec2InstanceId exists", true),
        (
            "(attribute:ecs.instance-type =~ g2.* and attribute:ecs.availability-zone != us-east-1d)",
            false,
        ),
        ("attribute:spot exists", true),
        ("attribute:spot == ''", true),
        ("attribute:gpu exists", false),
        ("attribute:gpu !exists", true),
        ("attribute:gpu not_exists", true),
        ("attribute:gpu == 1", false),
        ("attribute:gpu != 1", true),
        ("attribute:gpu > 0", false),
        ("attribute:rack > 10", false),
        ("attribute:rack less_than 10", true),
        ("attribute:rack <= 7.0", true),
        ("agentConnected == true", true),
        ("agentConnected == TRUE", true),
        ("agentConnected != false", true),
        ("agentVersion >= 1.9", true),
        ("agentVersion < 1.105", false),
        ("agentVersion == 1.105.0", true),
        ("registeredAt > 2018-02-18", true),
        ("registeredAt >= 2018-02-18T22:28:28+00:00", true),
        ("registeredAt < 2018-02-18T22:28:28Z", false),
        ("registeredAt == 2018-02-18T23:28:28+01:00", true),
        // `and` binds more than `or`, and `not` more than both.
        (
            "attribute:rack == 7 or attribute:gpu exists and attribute:gpu == 1",
            true,
        ),
        (
            "(attribute:rack == 7 or attribute:gpu exists) and attribute:gpu == 1",
            false,
        ),
        ("not attribute:rack == 7 or attribute:rack == 7", true),
        ("attribute:rack==7&&attribute:spot exists", true),
        ("attribute:rack == 8 || !attribute:gpu exists", true),
    ];
    for (text, holds) in cases {
        let expression = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.holds(&instance()), holds, "{text}");
        assert_eq!(
            parse(&expression.to_string()).as_ref(),
            Ok(&expression),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_expression_is_refused_where_it_goes_wrong() {
    let cases = [
        (
            "",
            "expected a subject such as attribute:NAME, found the end",
            1,
        ),
        (
            "attribute:x",
            "expected an operator such as == or exists, found the end",
            12,
        ),
        ("attribute: == 1", "the name of an attribute is missing", 11),
        ("colour == red", "unknown subject 'colour'", 7),
        (
            "attribute:x === 1",
            "expected 'and', 'or' or the end, found '1'",
            18,
        ),
        ("attribute:x == 'red", "the quote ' is not closed", 16),
        ("(attribute:x exists", "expected ')', found the end", 20),
        (
            "attribute:x exists)",
            "expected 'and', 'or' or the end, found ')'",
            20,
        ),
        (
            "attribute:x in red",
            "expected a list in brackets, found 'red'",
            19,
        ),
        ("attribute:x in []", "expected an argument, found ']'", 18),
        ("attribute:x =~ '('", "is not a regular expression", 19),
        ("attribute:x =~ '(?=a)'", "look-around", 23),
        ("attribute:x =~ '(a{1000}){1000}'", "is too large", 33),
        (
            "attribute:x ! == 1",
            "expected an operator such as == or exists, found '=='",
            17,
        ),
        ("runningTasksCount > many", "'many' is not a number", 25),
        ("registeredAt > soon", "'soon' is not a date", 20),
        ("agentVersion > new", "'new' is not a version", 19),
    ];
    for (text, reason, at) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn length_and_depth_have_limits() {
    let long = format!("attribute:x == {}", "y".repeat(EXPRESSION_LENGTH_MAX));
    assert!(
        parse(&long)
            .unwrap_err()
            .reason
            .contains("longer than 2000")
    );
    let deep = format!("{}attribute:x exists{}", "(".repeat(900), ")".repeat(900));
    assert!(parse(&deep).unwrap_err().reason.contains("nested"));
    let negated = format!("{}attribute:x exists", "!".repeat(1900));
    assert!(parse(&negated).unwrap_err().reason.contains("nested"));
    // A chain nests to the left, which is also taken apart without a deep stack.
    let chain = vec!["attribute:x exists"; 90].join(" or ");
    let expression = parse(&chain).unwrap();
    assert!(!expression.holds(&instance()));
}

fn any_text() -> BoxedStrategy<String> {
    prop_oneof![
        "[ -~]{0,8}",
        "[a-z0-9.:_-]{1,10}",
        Just("it's \\ \"here\"\\".to_owned()),
    ]
    .boxed()
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn any_expression() -> BoxedStrategy<String> {
    let equality = ("[a-z.]{1,8}", prop_oneof!["==", "!="], any_text())
        .prop_map(|(name, sign, text)| format!("attribute:{name} {sign} {}", quoted(&text)));
    let listed = (
        prop_oneof!["in", "!in"],
        proptest::collection::vec(any_text(), 1..4),
    )
        .prop_map(|(sign, texts)| {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("task:group {sign} [{}]", texts.join(","))
        });
    let leaf = prop_oneof![
        equality,
        listed,
        "runningTasksCount (>|<|>=|<=) [0-9]{1,4}",
        "attribute:[a-z]{1,5} !?exists",
        "agentVersion =~ [a-z0-9]{1,3}[.][*]",
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop_oneof![Just("and"), Just("or"), Just("&&"), Just("||")],
                inner.clone()
            )
                .prop_map(|(left, sign, right)| format!("({left}) {sign} {right}")),
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            inner.prop_map(|inner| format!("!{inner}")),
        ]
    })
    .boxed()
}

proptest! {
    #[test]
    fn what_is_printed_is_read_as_the_same(text in any_expression()) {
        let expression = parse(&text).map_err(|error| proptest::test_runner::TestCaseError::fail(format!("{text}: {error}")))?;
        let again = parse(&expression.to_string());
        prop_assert_eq!(Ok(&expression), again.as_ref(), "{} printed as {}", text, expression);
        prop_assert_eq!(expression.holds(&instance()), again.unwrap().holds(&instance()));
    }

    #[test]
    fn no_text_breaks_the_reader(text in prop_oneof![
        ".{0,60}",
        "[()!=~<>&|\\[\\],'\"a \\\\]{0,40}",
        "(attribute:a|task:group|not|and|or|in|exists|==|=~|[(]|[)]|\\[|\\]|,|'| ){0,20}",
    ]) {
        if let Ok(expression) = parse(&text) {
            prop_assert_eq!(parse(&expression.to_string()), Ok(expression));
        }
    }
}
