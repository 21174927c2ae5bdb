//! Moments as the formats of logs write them, in UTC.

/// A moment's parts on the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub year: i64,
    pub month: usize,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub millisecond: i64,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Moment {
    pub fn of(ms: i64) -> Self {
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        // Days are counted from a first of March, so that a leap day is the last of its year.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: usize::try_from(month).unwrap_or(1),
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1000 % 60,
            millisecond: of_day % 1000,
        }
    }

    /// `2026-11-21T07:08:09` and a fraction of so many digits.
    pub fn rfc3339(self, digits: usize) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            millisecond,
        } = self;
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        if digits > 0 {
            text.push_str(&format!(
                ".{millisecond:03}{}",
                "0".repeat(digits.saturating_sub(3))
            ));
        }
        text.push('Z');
        text
    }

    /// `Nov  1 07:08:09`.
    pub fn stamp(self) -> String {
        let month = MONTHS.get(self.month.wrapping_sub(1)).unwrap_or(&"Jan");
        let Self {
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        format!("{month} {day:2} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (1_767_225_600_123, "2026-01-01T00:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Moment::of(ms).rfc3339(3), text);
        }
        let moment = Moment::of(1_767_225_600_123);
        assert_eq!(moment.rfc3339(0), "2026-01-01T00:00:00Z");
        assert_eq!(moment.rfc3339(9), "2026-01-01T00:00:00.123000000Z");
        assert_eq!(moment.stamp(), "Jan  1 00:00:00");
    }
}
