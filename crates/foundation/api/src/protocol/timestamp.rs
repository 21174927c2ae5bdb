//! Timestamps as text: ISO 8601 and HTTP dates, to the millisecond.
//!
//! Pure arithmetic on the proleptic Gregorian calendar; no time zone but UTC is ever written.

use gantry_env::Timestamp;

use crate::schema::TimestampFormat;

const DAY_MS: i64 = 86_400_000;
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes a timestamp in one of AWS's formats.
pub fn format(time: Timestamp, format: TimestampFormat) -> String {
    let ms = time.as_millis();
    let (days, in_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second, fraction) = (
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1000 % 60,
        in_day % 1000,
    );
    match format {
        TimestampFormat::EpochSeconds => epoch_seconds(ms),
        TimestampFormat::Iso8601 => {
            let fraction = if fraction == 0 {
                String::new()
            } else {
                format!(".{fraction:03}")
            };
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
        }
        TimestampFormat::HttpDate => {
            let weekday = WEEKDAYS[days.rem_euclid(7) as usize];
            let month = MONTHS[(month - 1) as usize];
            format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
        }
    }
}

fn epoch_seconds(ms: i64) -> String {
    if ms % 1000 == 0 {
        return (ms / 1000).to_string();
    }
    let sign = if ms < 0 { "-" } else { "" };
    let (whole, fraction) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
    format!("{sign}{whole}.{fraction:03}")
        .trim_end_matches('0')
        .to_owned()
}

/// Reads a timestamp in any of AWS's formats.
pub fn parse(text: &str) -> Option<Timestamp> {
    parse_epoch(text)
        .or_else(|| parse_iso8601(text))
        .or_else(|| parse_http_date(text))
}

fn parse_epoch(text: &str) -> Option<Timestamp> {
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
    {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    (seconds.abs() < 9e12).then(|| Timestamp::from_epoch_seconds_f64(seconds))
}

fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let (date, clock) = text
        .split_once(['T', 't', ' '])
        .unwrap_or((text, "00:00:00Z"));
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (
        digits(date.next()?, 4)?,
        digits(date.next()?, 2)?,
        digits(date.next()?, 2)?,
    );
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':');
    let (hour, minute) = (digits(clock.next()?, 2)?, digits(clock.next()?, 2)?);
    let second = clock.next().map_or(Some(0), |second| digits(second, 2))?;
    let offset = zone_minutes(zone)?;
    assemble(
        year,
        month,
        day,
        hour,
        minute,
        second,
        millis(fraction)?,
        offset,
    )
}

fn zone_minutes(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first() {
        None | Some(b'Z' | b'z') => return (zone.len() <= 1).then_some(0),
        Some(b'-') => -1,
        _ => 1,
    };
    let (hours, minutes) = match zone[1..].split_once(':') {
        Some(parts) => parts,
        None if zone.len() == 5 && zone.is_ascii() => zone[1..].split_at(2),
        None => (&zone[1..], "00"),
    };
    Some(sign * (digits(hours, 2)? * 60 + digits(minutes, 2)?))
}

fn parse_http_date(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day = digits(parts.next()?, 2)?;
    let month_name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == month_name)? as i64 + 1;
    let year = digits(parts.next()?, 4)?;
    let clock = parts.next()?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':');
    let (hour, minute, second) = (
        digits(clock.next()?, 2)?,
        digits(clock.next()?, 2)?,
        digits(clock.next()?, 2)?,
    );
    if parts.next() != Some("GMT") {
        return None;
    }
    assemble(year, month, day, hour, minute, second, millis(fraction)?, 0)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn millis(fraction: &str) -> Option<i64> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}").get(..3)?.parse().ok()
}

#[expect(clippy::too_many_arguments, reason = "these are the parts of a date")]
fn assemble(
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    millis: i64,
    offset_minutes: i64,
) -> Option<Timestamp> {
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !valid {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second - offset_minutes * 60;
    Some(Timestamp::from_millis(
        days_from_civil(year, month, day) * DAY_MS + seconds * 1000 + millis,
    ))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that a leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{format, parse};
    use crate::schema::TimestampFormat;
    use gantry_env::Timestamp;

    #[test]
    fn formats_read_back_as_the_same_time() {
        for ms in [
            0,
            1,
            -1,
            951_782_400_000,
            1_576_540_098_123,
            4_102_444_799_999,
            -62_135_596_800_000,
        ] {
            let time = Timestamp::from_millis(ms);
            assert_eq!(
                parse(&format(time, TimestampFormat::Iso8601)),
                Some(time),
                "{ms}"
            );
            assert_eq!(
                parse(&format(time, TimestampFormat::EpochSeconds)),
                Some(time),
                "{ms}"
            );
        }
    }

    #[test]
    fn reads_what_clients_send() {
        let time = Timestamp::from_millis(1_576_540_098_000);
        assert_eq!(parse("2019-12-16T23:48:18Z"), Some(time));
        assert_eq!(parse("2019-12-16T22:48:18-01:00"), Some(time));
        assert_eq!(parse("Mon, 16 Dec 2019 23:48:18 GMT"), Some(time));
        assert_eq!(
            format(time, TimestampFormat::HttpDate),
            "Mon, 16 Dec 2019 23:48:18 GMT"
        );
        assert_eq!(parse("1576540098"), Some(time));
    }

    #[test]
    fn refuses_what_is_no_date() {
        for text in [
            "",
            "2019-13-01T00:00:00Z",
            "2019-02-29T00:00:00Z",
            "2019-12-16T24:00:00Z",
            "Z",
            "é",
            "2019-12-16T00:00:00+é",
            "2019-12-16T00:00:00+1é1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
