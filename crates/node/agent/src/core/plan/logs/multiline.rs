//! When a line begins a new event: a pattern of the user's, or a form of dates.

use regex::Regex;

/// A regular expression that can be used, or why not.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    match Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The regular expression of a `strftime` format, which finds a date anywhere in a line.
pub(super) fn datetime(format: &str) -> Result<String, String> {
    let mut expression = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            expression.push_str(&regex::escape(&c.to_string()));
            continue;
        }
        let verb = chars.next().ok_or("it ends with '%'")?;
        expression.push_str(match verb {
            'A' => "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
            'a' => "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
            'B' => {
                "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
            }
            'b' => "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
            'Y' => r"\d{4}",
            'w' => "[0-6]",
            'd' | 'm' | 'y' | 'H' | 'I' | 'M' | 'S' => r"\d{2}",
            'j' => r"\d{3}",
            'f' => r"\d{6}",
            'L' => r"\.\d{3}",
            'p' => "(?:AM|PM)",
            'z' => r"[+-]\d{4}",
            'Z' => "[A-Z]{1,4}",
            '%' => "%",
            other => return Err(format!("'%{other}' is not known in it")),
        });
    }
    pattern(&expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_dates_find_dates() {
        for (format, line, other) in [
            (
                "%Y-%m-%d %H:%M:%S%L",
                "x 2026-11-21 07:08:09.123 y",
                "2026-11-21",
            ),
            (
                "[%b %d, %Y %H:%M:%S]",
                "[Jan 02, 2026 00:00:00] up",
                "Jan 02, 2026 00:00:00",
            ),
            (
                "%a %d %B %I%p 100%%",
                "Mon 02 May 07PM 100%",
                "Mon 2 May 07PM 100%",
            ),
            (
                "%y%j %z %Z %f %w %A",
                "26123 +0100 CET 123456 3 Friday",
                "26123",
            ),
        ] {
            let expression = Regex::new(&datetime(format).unwrap()).unwrap();
            assert!(expression.is_match(line), "{format}");
            assert!(!expression.is_match(other), "{format}");
        }
        assert!(datetime("%Q").is_err() && datetime("%").is_err() && pattern("(").is_err());
    }
}
