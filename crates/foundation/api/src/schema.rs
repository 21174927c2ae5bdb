//! Schemas: what a shape of a service model looks like, as data.
//!
//! Codecs, validation and `Debug` are written once against schemas instead of once per type.
//! Generated schemas are statics that point at each other; schemas built while running (for
//! protocol test cases) close cycles through a cell that is set once. A schema never changes.

use std::sync::OnceLock;

/// A shape of a model.
#[derive(Debug)]
pub struct Schema {
    pub name: &'static str,
    pub kind: Kind,
    /// Never shown in `Debug` or in a validation message.
    pub sensitive: bool,
    pub constraints: Constraints,
    pub timestamp_format: Option<TimestampFormat>,
    /// `locationName` of the shape itself: the root element of a document.
    pub location_name: Option<&'static str>,
    /// What an error shape means, where this is one.
    pub error: Option<ErrorTraits>,
}

#[derive(Debug)]
pub enum Kind {
    Structure {
        members: &'static [Member],
        union: bool,
    },
    List {
        element: Member,
        flattened: bool,
    },
    Map {
        key: Member,
        value: Member,
        flattened: bool,
    },
    String,
    /// Open: values outside the list are kept as they came.
    Enum {
        values: &'static [&'static str],
    },
    Integer,
    Long,
    Double,
    Boolean,
    Timestamp,
    Blob,
    /// Any JSON value.
    Document,
}

/// A place where a shape is used: a structure's member, a list's element, a map's key or value.
#[derive(Debug)]
pub struct Member {
    pub name: &'static str,
    pub target: Target,
    pub required: bool,
    /// The name on the wire where it differs.
    pub location_name: Option<&'static str>,
    /// The name in an ec2Query form where it differs again.
    pub query_name: Option<&'static str>,
    pub flattened: bool,
    pub xml_attribute: bool,
    pub xml_namespace: Option<XmlNamespace>,
    pub timestamp_format: Option<TimestampFormat>,
    pub sensitive: bool,
    pub idempotency_token: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct XmlNamespace {
    pub uri: &'static str,
    pub prefix: Option<&'static str>,
}

/// The shape a member has.
#[derive(Debug)]
pub enum Target {
    Known(&'static Schema),
    /// Set once, before the schema is used: how schemas built while running form cycles.
    Late(&'static OnceLock<&'static Schema>),
}

/// Limits of a shape: length of text, blobs, lists and maps; value of numbers.
#[derive(Debug)]
pub struct Constraints {
    pub min: Option<i64>,
    pub max: Option<i64>,
    pub pattern: Option<Pattern>,
}

/// A regular expression of a model, compiled on first use.
#[derive(Debug)]
pub struct Pattern {
    pub source: &'static str,
    compiled: OnceLock<Option<regex::Regex>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    EpochSeconds,
    Iso8601,
    HttpDate,
}

/// How an exception appears to a caller.
#[derive(Clone, Copy, Debug)]
pub struct ErrorTraits {
    pub code: &'static str,
    /// The code of the Query protocol, for awsQueryCompatible services.
    pub query_code: Option<&'static str>,
    pub http_status: u16,
    pub sender_fault: bool,
}

impl Constraints {
    pub const NONE: Self = Self {
        min: None,
        max: None,
        pattern: None,
    };
}

impl Pattern {
    pub const fn new(source: &'static str) -> Self {
        Self {
            source,
            compiled: OnceLock::new(),
        }
    }

    /// AWS anchors its patterns at both ends. A pattern that Rust's engine has no syntax for
    /// (look-around) is not checked here; codegen lists those.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| regex::Regex::new(&format!("^(?s:{})$", self.source)).ok())
            .as_ref()
            .is_none_or(|regex| regex.is_match(text))
    }

    /// Whether this pattern can be checked.
    pub fn is_supported(&self) -> bool {
        self.matches("");
        self.compiled.get().is_some_and(Option::is_some)
    }
}

impl Target {
    pub fn get(&self) -> &'static Schema {
        static UNSET: Schema = Schema::scalar("Unset", Kind::Document);
        match self {
            Self::Known(schema) => schema,
            Self::Late(cell) => cell.get().copied().unwrap_or(&UNSET),
        }
    }
}

impl Member {
    /// A member with no traits; generated code overrides what the model says.
    pub const fn new(name: &'static str, target: &'static Schema) -> Self {
        Self {
            name,
            target: Target::Known(target),
            required: false,
            location_name: None,
            query_name: None,
            flattened: false,
            xml_attribute: false,
            xml_namespace: None,
            timestamp_format: None,
            sensitive: false,
            idempotency_token: false,
        }
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub const fn located(mut self, location_name: &'static str) -> Self {
        self.location_name = Some(location_name);
        self
    }

    pub const fn flattened(mut self) -> Self {
        self.flattened = true;
        self
    }

    pub const fn formatted(mut self, format: TimestampFormat) -> Self {
        self.timestamp_format = Some(format);
        self
    }

    pub const fn idempotency_token(mut self) -> Self {
        self.idempotency_token = true;
        self
    }

    pub const fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    pub fn target(&self) -> &'static Schema {
        self.target.get()
    }

    /// The name on the wire.
    pub fn wire_name(&self) -> &'static str {
        self.location_name.unwrap_or(self.name)
    }
}

impl Schema {
    pub const fn scalar(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            sensitive: false,
            constraints: Constraints::NONE,
            timestamp_format: None,
            location_name: None,
            error: None,
        }
    }

    pub const fn structure(name: &'static str, members: &'static [Member]) -> Self {
        Self::scalar(
            name,
            Kind::Structure {
                members,
                union: false,
            },
        )
    }

    pub const fn union(name: &'static str, members: &'static [Member]) -> Self {
        Self::scalar(
            name,
            Kind::Structure {
                members,
                union: true,
            },
        )
    }

    pub const fn list(name: &'static str, element: Member) -> Self {
        Self::scalar(
            name,
            Kind::List {
                element,
                flattened: false,
            },
        )
    }

    pub const fn map(name: &'static str, key: Member, value: Member) -> Self {
        Self::scalar(
            name,
            Kind::Map {
                key,
                value,
                flattened: false,
            },
        )
    }

    pub const fn enumeration(name: &'static str, values: &'static [&'static str]) -> Self {
        Self::scalar(name, Kind::Enum { values })
    }

    pub const fn limited(mut self, min: Option<i64>, max: Option<i64>) -> Self {
        self.constraints.min = min;
        self.constraints.max = max;
        self
    }

    pub const fn matching(mut self, pattern: &'static str) -> Self {
        // The old value holds a cell, which a constant function may not drop.
        std::mem::forget(self.constraints.pattern.replace(Pattern::new(pattern)));
        self
    }

    pub const fn flat(mut self) -> Self {
        match &mut self.kind {
            Kind::List { flattened, .. } | Kind::Map { flattened, .. } => *flattened = true,
            _ => {}
        }
        self
    }

    pub const fn secret(mut self) -> Self {
        self.sensitive = true;
        self
    }

    pub const fn formatted(mut self, format: TimestampFormat) -> Self {
        self.timestamp_format = Some(format);
        self
    }

    pub const fn exception(mut self, error: ErrorTraits) -> Self {
        self.error = Some(error);
        self
    }

    /// Members of a structure; none for any other kind.
    pub fn members(&self) -> &'static [Member] {
        match self.kind {
            Kind::Structure { members, .. } => members,
            _ => &[],
        }
    }

    /// The index of the member with this name on the wire.
    pub fn member_index(&self, wire_name: &str) -> Option<usize> {
        self.members()
            .iter()
            .position(|member| member.wire_name() == wire_name)
    }
}
