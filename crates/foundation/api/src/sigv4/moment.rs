//! ISO 8601 in its basic form, the only form of time that SigV4 knows: `20150830T123600Z`.

use gantry_env::Timestamp;

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years run from March, so that the
/// leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `None` unless the text is exactly `YYYYMMDDTHHMMSSZ` and a moment that exists.
pub fn parse_amz_date(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        bytes[range].iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit()
                .then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let (year, month, day) = (number(0..4)?, number(4..6)?, number(6..8)?);
    let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    let next_month = days_from_civil(year + month / 12, month % 12 + 1, 1);
    if day < 1 || days >= next_month {
        return None;
    }
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Timestamp::from_millis(seconds * 1000))
}

/// The text form; its first eight characters are the date of a credential scope.
pub fn format_amz_date(at: Timestamp) -> String {
    // `Display` is the extended form with milliseconds, which only has to lose its punctuation.
    let extended = at.to_string();
    let whole_seconds = extended.split('.').next().unwrap_or_default();
    let mut basic: String = whole_seconds
        .chars()
        .filter(|c| *c != '-' && *c != ':')
        .collect();
    basic.push('Z');
    basic
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_moments_that_exist_are_read() {
        for bad in [
            "",
            "20150830",
            "20150830T123600",
            "20150830T123600z",
            "20151330T123600Z",
            "20150230T123600Z",
            "20150800T123600Z",
            "20150830T243600Z",
            "20150830T126000Z",
            "2015-08-30T12:36",
            "２015083T12360Z",
            "+0150830T123600Z",
        ] {
            assert_eq!(parse_amz_date(bad), None, "{bad}");
        }
        let leap = parse_amz_date("20240229T235959Z").unwrap();
        assert_eq!(leap.to_string(), "2024-02-29T23:59:59.000Z");
        assert_eq!(parse_amz_date("19700101T000000Z"), Some(Timestamp::EPOCH));
        assert_eq!(
            parse_amz_date("20151231T000000Z").unwrap().to_string(),
            "2015-12-31T00:00:00.000Z"
        );
    }

    proptest! {
        #[test]
        fn text_and_moment_round_trip(seconds in 0i64..253_402_300_800) {
            let at = Timestamp::from_millis(seconds * 1000);
            prop_assert_eq!(parse_amz_date(&format_amz_date(at)), Some(at));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,20}") {
            let _ = parse_amz_date(&text);
        }
    }
}
