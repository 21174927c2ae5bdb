//! Validation of inputs against the constraints of the model, in AWS's own words.
//!
//! Most services share one front end whose messages clients match on: "1 validation error
//! detected: Value ... at ... failed to satisfy constraint: ...". ECR words it otherwise and ECS
//! checks for itself, so the style is chosen per service. Operations can rely on what is
//! checked here and repeat none of it.

use crate::error::ApiError;
use crate::read::{Missing, push_name};
use crate::schema::{Kind, Member, Schema};
use crate::shape::{Structure, View};

/// Whose words a service uses for a bad input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidationStyle {
    /// The shared front end, with the error code of this service.
    FrontEnd { code: &'static str },
    /// ECR: one message a request, "Invalid parameter at ...".
    InvalidParameter,
    /// The service words its own errors; only what it cannot see (a number or structure that is
    /// required and did not come) is refused here.
    Own,
}

/// Everything that is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationErrors {
    pub errors: Vec<ValidationError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// `tags.1.member.key`.
    pub path: String,
    /// As AWS shows it; `None` for secrets.
    pub value: Option<String>,
    /// `Member must have length less than or equal to 64`.
    pub constraint: String,
}

/// More errors than this are not worth telling; AWS cuts its lists as well.
const MAX_ERRORS: usize = 10;

impl std::fmt::Display for ValidationErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.errors.len() == 1 {
            "error"
        } else {
            "errors"
        };
        write!(f, "{} validation {plural} detected: ", self.errors.len())?;
        for (index, error) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let value = match &error.value {
                Some(value) => format!("{value} "),
                None => String::new(),
            };
            write!(
                f,
                "{separator}Value {value}at '{}' failed to satisfy constraint: {}",
                error.path, error.constraint
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ValidationErrors {}

/// Checks what was read, as the service's front end would.
pub fn check(
    style: ValidationStyle,
    input: &dyn Structure,
    missing: &[Missing],
) -> Result<(), ApiError> {
    match style {
        ValidationStyle::FrontEnd { code } => validate_read(input, missing)
            .map_err(|errors| ApiError::sender(code, errors.to_string())),
        ValidationStyle::InvalidParameter => validate_read(input, missing).map_err(|errors| {
            let Some(first) = errors.errors.first() else {
                return ApiError::sender("InvalidParameterException", "Invalid parameter");
            };
            let constraint = first
                .constraint
                .strip_prefix("Member must satisfy regular expression pattern: ")
                .map_or_else(
                    || first.constraint.clone(),
                    |pattern| format!("must satisfy regular expression '{pattern}'"),
                );
            ApiError::sender(
                "InvalidParameterException",
                format!(
                    "Invalid parameter at '{}' failed to satisfy constraint: '{constraint}'",
                    first.path
                ),
            )
        }),
        ValidationStyle::Own => {
            let unseen: Vec<Missing> = missing
                .iter()
                .filter(|missing| !missing.may_be_blank)
                .cloned()
                .collect();
            let errors = of_missing(&unseen);
            if errors.is_empty() {
                return Ok(());
            }
            Err(ApiError::sender(
                "InvalidParameterException",
                ValidationErrors { errors }.to_string(),
            ))
        }
    }
}

/// Checks a value that was built in this process: required members are always there.
pub fn validate(input: &dyn Structure) -> Result<(), ValidationErrors> {
    validate_read(input, &[])
}

fn validate_read(input: &dyn Structure, missing: &[Missing]) -> Result<(), ValidationErrors> {
    let mut walk = Walk {
        errors: of_missing(missing),
        missing,
    };
    walk.structure(input, &mut String::new());
    walk.errors.truncate(MAX_ERRORS);
    if walk.errors.is_empty() {
        Ok(())
    } else {
        Err(ValidationErrors {
            errors: walk.errors,
        })
    }
}

fn of_missing(missing: &[Missing]) -> Vec<ValidationError> {
    missing
        .iter()
        .map(|missing| ValidationError {
            path: missing.path.clone(),
            value: Some("null".to_owned()),
            constraint: "Member must not be null".to_owned(),
        })
        .collect()
}

struct Walk<'a> {
    errors: Vec<ValidationError>,
    missing: &'a [Missing],
}

impl Walk<'_> {
    fn structure(&mut self, structure: &dyn Structure, path: &mut String) {
        for (index, member) in structure.schema().members().iter().enumerate() {
            let Some(value) = structure.member(index) else {
                continue;
            };
            let length = path.len();
            push_name(path, member.name);
            // What did not come is reported as null and not also as too short.
            if !self.missing.iter().any(|missing| missing.path == *path) {
                self.value(value.view(), member, path);
            }
            path.truncate(length);
        }
    }

    fn value(&mut self, view: View<'_>, member: &'static Member, path: &mut String) {
        if view.is_absent() || self.errors.len() >= MAX_ERRORS {
            return;
        }
        let schema = member.target();
        for constraint in broken(view, schema) {
            self.errors.push(ValidationError {
                path: path.clone(),
                value: if schema.sensitive || member.sensitive {
                    None
                } else {
                    Some(shown(view))
                },
                constraint,
            });
        }
        let length = path.len();
        match (view, &schema.kind) {
            (View::Structure(structure), _) => self.structure(structure, path),
            (View::List(list), Kind::List { element, .. }) => {
                if is_scalar(element.target()) {
                    self.scalars(view, element.target(), path);
                } else {
                    for index in 0..list.len() {
                        let Some(value) = list.element(index) else {
                            continue;
                        };
                        path.push_str(&format!(".{}.member", index + 1));
                        self.value(value.view(), element, path);
                        path.truncate(length);
                    }
                }
            }
            (
                View::Map(map),
                Kind::Map {
                    key: key_member,
                    value: value_member,
                    ..
                },
            ) => {
                let mut bad_keys = false;
                map.each(&mut |key, value| {
                    bad_keys |= !broken(View::String(key), key_member.target()).is_empty();
                    path.push_str(&format!(".{key}.member"));
                    self.value(value.view(), value_member, path);
                    path.truncate(length);
                });
                if bad_keys {
                    let wanted = wanted(key_member.target()).join(", ");
                    self.errors.push(ValidationError {
                        path: path.clone(),
                        value: Some(shown(view)),
                        constraint: format!("Map keys must satisfy constraint: [{wanted}]"),
                    });
                }
            }
            _ => {}
        }
    }

    /// AWS reports a list of scalars as a whole, with everything its elements must satisfy.
    fn scalars(&mut self, view: View<'_>, element: &'static Schema, path: &str) {
        let View::List(list) = view else { return };
        let bad = (0..list.len())
            .filter_map(|index| list.element(index))
            .any(|value| !broken(value.view(), element).is_empty());
        if bad {
            let wanted = wanted(element).join(", ");
            self.errors.push(ValidationError {
                path: path.to_owned(),
                value: if element.sensitive {
                    None
                } else {
                    Some(shown(view))
                },
                constraint: format!("Member must satisfy constraint: [{wanted}]"),
            });
        }
    }
}

fn is_scalar(schema: &Schema) -> bool {
    !matches!(
        schema.kind,
        Kind::Structure { .. } | Kind::List { .. } | Kind::Map { .. }
    )
}

/// The constraints that a value breaks.
fn broken(view: View<'_>, schema: &'static Schema) -> Vec<String> {
    let mut broken = Vec::new();
    let limits = &schema.constraints;
    let (size, measure) = match view {
        View::String(text) => (text.chars().count() as f64, "length"),
        View::Blob(bytes) => (bytes.len() as f64, "length"),
        View::List(list) => (list.len() as f64, "length"),
        View::Map(map) => (map.len() as f64, "length"),
        View::Integer(number) => (number as f64, "value"),
        View::Double(number) => (number, "value"),
        _ => return broken,
    };
    if let Some(max) = limits.max
        && size > max as f64
    {
        broken.push(format!(
            "Member must have {measure} less than or equal to {max}"
        ));
    }
    if let Some(min) = limits.min
        && size < min as f64
    {
        broken.push(format!(
            "Member must have {measure} greater than or equal to {min}"
        ));
    }
    if let View::String(text) = view {
        if let Some(pattern) = &limits.pattern
            && !pattern.matches(text)
        {
            broken.push(format!(
                "Member must satisfy regular expression pattern: {}",
                pattern.source
            ));
        }
        if let Kind::Enum { values } = schema.kind
            && !values.contains(&text)
        {
            broken.push(format!(
                "Member must satisfy enum value set: [{}]",
                values.join(", ")
            ));
        }
    }
    broken
}

/// Everything that elements of this shape must satisfy.
fn wanted(schema: &'static Schema) -> Vec<String> {
    let limits = &schema.constraints;
    let measure = match schema.kind {
        Kind::Integer | Kind::Long | Kind::Double => "value",
        _ => "length",
    };
    let mut wanted = Vec::new();
    if let Some(max) = limits.max {
        wanted.push(format!(
            "Member must have {measure} less than or equal to {max}"
        ));
    }
    if let Some(min) = limits.min {
        wanted.push(format!(
            "Member must have {measure} greater than or equal to {min}"
        ));
    }
    if let Some(pattern) = &limits.pattern {
        wanted.push(format!(
            "Member must satisfy regular expression pattern: {}",
            pattern.source
        ));
    }
    if let Kind::Enum { values } = schema.kind {
        wanted.push(format!(
            "Member must satisfy enum value set: [{}]",
            values.join(", ")
        ));
    }
    wanted
}

/// A value as AWS's messages show it.
fn shown(view: View<'_>) -> String {
    let text = plain(view);
    // A caller may have sent megabytes; the message shows enough to recognise them.
    let cut: String = text.chars().take(1024).collect();
    format!("'{cut}'")
}

fn plain(view: View<'_>) -> String {
    match view {
        View::String(text) => text.to_owned(),
        View::Integer(number) => number.to_string(),
        View::Double(number) => number.to_string(),
        View::Boolean(flag) => flag.to_string(),
        View::Timestamp(time) => time.as_millis().to_string(),
        View::List(list) => {
            let elements: Vec<String> = (0..list.len().min(64))
                .filter_map(|index| list.element(index))
                .map(|value| plain(value.view()))
                .collect();
            format!("[{}]", elements.join(", "))
        }
        View::Map(map) => {
            let mut entries = Vec::new();
            map.each(&mut |key, value| entries.push(format!("{key}={}", plain(value.view()))));
            format!("{{{}}}", entries.join(", "))
        }
        View::Structure(structure) => structure.schema().name.to_owned(),
        View::Absent => "null".to_owned(),
        View::Blob(bytes) => format!("{} bytes", bytes.len()),
        View::Document(value) => value.to_string(),
    }
}
