//! A moment of wall-clock time, in milliseconds since 1970, as AWS's services give it.
//!
//! Arithmetic saturates: no timestamp that a stranger sent can make it panic. In JSON rows it is
//! an integer of milliseconds; the wire's own forms (epoch seconds, ISO 8601) belong to the codecs.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Self = Self(0);
    pub const MAX: Self = Self(i64::MAX);

    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From the seconds that awsJson carries; what is not a number counts as the epoch and what
    /// is out of range as its end.
    pub fn from_epoch_seconds_f64(seconds: f64) -> Self {
        // A float cast saturates, and NaN becomes zero.
        Self((seconds * 1000.0).round() as i64)
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds with a fraction, as awsJson carries them.
    pub fn as_epoch_seconds_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    pub const fn as_epoch_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        let ms = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis_of(duration)))
    }
}

impl AddAssign<Duration> for Timestamp {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis_of(duration)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;
    /// The same as [`Timestamp::since`]: zero rather than negative.
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// ISO 8601 in UTC with milliseconds, for logs and for people.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.0.div_euclid(86_400_000));
        let ms = self.0.rem_euclid(86_400_000);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, fraction) = (ms / 1000 % 60, ms % 1000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z"
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years are counted from March
/// within eras of 400 years, so that the leap day is always a year's last.
fn civil_date(days_since_epoch: i64) -> (i64, i64, i64) {
    const DAYS_AN_ERA: i64 = 146_097;
    let days = days_since_epoch + 719_468;
    let era = days.div_euclid(DAYS_AN_ERA);
    let day_of_era = days.rem_euclid(DAYS_AN_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_prints_as_iso_8601() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_600_123, "2026-01-01T00:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Timestamp::from_millis(ms).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let now = Timestamp::from_millis(1000);
        assert_eq!(now - Timestamp::from_millis(2000), Duration::ZERO);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(
            Timestamp::from_millis(i64::MIN) - Duration::MAX,
            Timestamp::from_millis(i64::MIN)
        );
        assert_eq!(
            Timestamp::from_epoch_seconds_f64(f64::NAN),
            Timestamp::EPOCH
        );
        assert_eq!(
            Timestamp::from_epoch_seconds_f64(f64::INFINITY),
            Timestamp::MAX
        );
        assert_eq!(
            (now + Duration::from_millis(5)) - now,
            Duration::from_millis(5)
        );
    }

    proptest! {
        #[test]
        fn every_moment_can_be_shown_and_stored(ms: i64, other: i64) {
            let at = Timestamp::from_millis(ms);
            prop_assert!(!at.to_string().is_empty());
            let json = serde_json::to_string(&at).unwrap();
            prop_assert_eq!(&json, &ms.to_string());
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
            let _ = at - Timestamp::from_millis(other);
        }

        #[test]
        fn seconds_round_trip_within_the_millisecond(ms in -4_000_000_000_000i64..4_000_000_000_000) {
            let at = Timestamp::from_millis(ms);
            prop_assert_eq!(Timestamp::from_epoch_seconds_f64(at.as_epoch_seconds_f64()), at);
        }
    }
}
