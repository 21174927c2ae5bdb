//! Moments as `registeredAt` is compared: ISO 8601, to the millisecond, in UTC or with an offset.

const MS_PER_DAY: i64 = 86_400_000;

/// Milliseconds since the epoch of `2018-02-18`, `2018-02-18T22:28:28Z`,
/// `2018-02-18T22:28:28.123+01:00` and the like.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        None => (text, None),
        Some((date, time)) => (date, Some(time)),
    };
    let mut parts = date.splitn(3, '-');
    let year = digits(parts.next()?, 4)?;
    let month = digits(parts.next()?, 2)?;
    let day = digits(parts.next()?, 2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_of_month(year, month) {
        return None;
    }
    let midnight = days_since_epoch(year, month, day) * MS_PER_DAY;
    Some(midnight + time.map_or(Some(0), time_of_day)?)
}

/// As [`parse`] reads it.
pub(super) fn print(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil_date(days);
    let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
    let (second, fraction) = (ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
}

/// Milliseconds after midnight UTC; an offset may lead into another day.
fn time_of_day(text: &str) -> Option<i64> {
    let at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at_checked(at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let hour = digits(parts.next()?, 2)?;
    let minute = digits(parts.next()?, 2)?;
    let second = parts.next().map_or(Some(0), |text| digits(text, 2))?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction = match fraction {
        "" => 0,
        text if text.bytes().all(|b| b.is_ascii_digit()) => {
            let three: String = text.chars().chain("000".chars()).take(3).collect();
            three.parse().ok()?
        }
        _ => return None,
    };
    let ms = ((hour * 60 + minute) * 60 + second) * 1000 + fraction;
    Some(ms - offset(zone)?)
}

fn offset(zone: &str) -> Option<i64> {
    let (sign, text) = match zone.as_bytes().first() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'+') => (1, &zone[1..]),
        Some(_) => (-1, &zone[1..]),
    };
    let (hours, minutes) = match text.split_once(':') {
        Some(parts) => parts,
        None => text.split_at_checked(2)?,
    };
    let minutes = if minutes.is_empty() {
        0
    } else {
        digits(minutes, 2)?
    };
    Some(sign * (digits(hours, 2)? * 60 + minutes) * 60_000)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let right = text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    if right { text.parse().ok() } else { None }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March so that the
/// leap day is the last one.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

fn civil_date(days: i64) -> (i64, i64, i64) {
    // The year is at most one off this estimate, which the first of March decides.
    let shifted = days + 719_468;
    let mut year = (shifted * 400).div_euclid(146_097);
    while days_since_epoch(year + 1, 3, 1) <= days {
        year += 1;
    }
    while days_since_epoch(year, 3, 1) > days {
        year -= 1;
    }
    let day_of_year = days - days_since_epoch(year, 3, 1);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = if month <= 2 { year + 1 } else { year };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form() {
        let want = Some(1_518_992_908_000);
        for text in [
            "2018-02-18T22:28:28Z",
            "2018-02-18T22:28:28+00:00",
            "2018-02-18T22:28:28.000Z",
            "2018-02-18T23:28:28+01:00",
            "2018-02-18T20:28:28-0200",
            "2018-02-18 22:28:28",
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
        assert_eq!(parse("1970-01-01"), Some(0));
        assert_eq!(parse("2024-02-29"), Some(1_709_164_800_000));
        for text in [
            "",
            "2018",
            "2018-13-01",
            "2023-02-29",
            "2018-02-18T25:00",
            "yesterday",
            "2018-02-18T22:28:28+é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for ms in (-4_000_000_000_000i64..8_000_000_000_000).step_by(86_399_999_017) {
            assert_eq!(parse(&print(ms)), Some(ms), "{}", print(ms));
        }
    }
}
