//! Lengths of time as people write them on the command line: `500ms`, `90s`, `30m`, `1h`, `7d`.

use std::time::Duration;

use anyhow::{Context, bail};

pub fn parse(text: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("'{text}' is not a time like 90s, 30m, 1h or 7d");
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().with_context(wrong)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => bail!(wrong()),
    };
    Ok(Duration::from_millis(
        number.checked_mul(millis).with_context(wrong)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse("7d").unwrap(), Duration::from_secs(7 * 86_400));
        for bad in [
            "",
            "1",
            "h",
            "1y",
            "-1h",
            "1é",
            "1.5h",
            "99999999999999999d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
