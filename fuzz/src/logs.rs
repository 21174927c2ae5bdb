//! Filter patterns and the messages that they are held against.

use gantry_logs::model::pattern::FilterPattern;

use crate::{first_line, text};

/// A pattern in the first line, a message after it. Matching and extracting agree, and the cheap test
/// before them lets everything through that matches.
pub fn filter_patterns(data: &[u8]) {
    let (pattern, message) = first_line(data);
    let (Some(pattern), Some(message)) = (text(pattern), text(message)) else {
        return;
    };
    let pattern = match FilterPattern::parse(pattern) {
        Ok(pattern) => pattern,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let prefilter = pattern.prefilter();
    let json = r#"{"level": "error", "n": 5, "list": [1, {"a": null}], "text": "a\u0062c"}"#;
    for message in [
        message,
        "",
        json,
        "127.0.0.1 - [10/Oct/2000] \"GET / HTTP/1.0\" 200 5",
    ] {
        let matches = pattern.matches(message);
        assert_eq!(matches, pattern.extract(message).is_some(), "{message:?}");
        if let Some(needle) = prefilter.needle.as_deref().filter(|_| matches) {
            let escaped = prefilter.or_backslash && message.contains('\\');
            assert!(
                escaped || message.contains(needle),
                "{needle:?} in {message:?}"
            );
        }
    }
}
