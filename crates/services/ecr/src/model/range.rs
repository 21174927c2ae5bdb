//! The byte ranges of a request: `Range` of a download, `Content-Range` of an upload's chunk.

use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// No range, or one in a form that may be ignored (RFC 9110 allows it for several ranges).
    Whole,
    Part(Range<u64>),
    /// The range is well formed and begins past the end.
    Unsatisfiable,
}

/// Reads a `Range` header against the size of what is asked for.
pub fn requested(header: Option<&str>, size: u64) -> Requested {
    let Some((first, last)) = header
        .and_then(|h| h.trim().strip_prefix("bytes="))
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.split_once('-'))
    else {
        return Requested::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => match suffix.min(size) {
            0 => Requested::Unsatisfiable,
            length => Requested::Part(size - length..size),
        },
        (Some(first), None) if last.is_empty() => bounded(first, size, size),
        (Some(first), Some(last)) if first <= last => {
            bounded(first, last.saturating_add(1).min(size), size)
        }
        _ => Requested::Whole,
    }
}

fn bounded(first: u64, end: u64, size: u64) -> Requested {
    if first < size {
        Requested::Part(first..end)
    } else {
        Requested::Unsatisfiable
    }
}

/// Reads a chunk's `Content-Range`, which in the distribution specification is `first-last`,
/// both inclusive, with or without the unit that HTTP would have.
pub fn chunk(header: &str) -> Option<Range<u64>> {
    let header = header.trim();
    let header = header
        .strip_prefix("bytes")
        .unwrap_or(header)
        .trim_start_matches([' ', '=']);
    let range = header.split('/').next()?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..last.checked_add(1)?)
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_download() {
        for (header, expected) in [
            ("bytes=0-4", Requested::Part(0..5)),
            ("bytes=3-", Requested::Part(3..10)),
            ("bytes=-3", Requested::Part(7..10)),
            ("bytes=-30", Requested::Part(0..10)),
            ("bytes=5-300", Requested::Part(5..10)),
            ("bytes=10-", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=5-3", Requested::Whole),
            ("bytes=0-1,3-4", Requested::Whole),
            ("bytes=a-b", Requested::Whole),
            ("items=0-1", Requested::Whole),
            ("bytes=0-18446744073709551615", Requested::Part(0..10)),
            ("bytes=0-99999999999999999999", Requested::Whole),
        ] {
            assert_eq!(requested(Some(header), 10), expected, "{header}");
        }
        assert_eq!(requested(None, 10), Requested::Whole);
        assert_eq!(requested(Some("bytes=0-"), 0), Requested::Unsatisfiable);
    }

    #[test]
    fn ranges_of_a_chunk() {
        assert_eq!(chunk("0-9"), Some(0..10));
        assert_eq!(chunk("bytes 10-19/*"), Some(10..20));
        for bad in ["", "9-0", "-5", "5-", "+1-2", "0-18446744073709551615", "x"] {
            assert_eq!(chunk(bad), None, "{bad}");
        }
    }
}
