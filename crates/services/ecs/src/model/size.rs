//! Sizes of tasks as people write them: `256`, `.25 vCPU`, `512`, `0.5 GB`.
//!
//! What always holds: a size is a whole number of CPU units (1/1024 of a vCPU) or of MiB.

use std::ops::RangeInclusive;

/// CPU units that a task may have on a container instance: 0.125 to 192 vCPUs.
pub const TASK_CPU_UNITS: RangeInclusive<i64> = 128..=196_608;

const UNITS_PER_VCPU: f64 = 1024.0;
const MIB_PER_GB: f64 = 1024.0;

/// CPU units of a text like `1024`, `1 vCPU` or `.5vcpu`.
pub fn parse_cpu(text: &str) -> Option<i64> {
    parse(text, "vcpu", UNITS_PER_VCPU)
}

/// MiB of a text like `512`, `1GB` or `0.5 gb`.
pub fn parse_memory(text: &str) -> Option<i64> {
    parse(text, "gb", MIB_PER_GB)
}

fn parse(text: &str, unit: &str, factor: f64) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let Some(number) = text.strip_suffix(unit) else {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        return if plain { text.parse().ok() } else { None };
    };
    let number = number.trim();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let value = number.parse::<f64>().ok()? * factor;
    // Sizes far above anything real would not be exact; they are refused by their range later.
    (value.fract() == 0.0 && value <= 1e12).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form_that_aws_takes() {
        for (text, units) in [
            ("256", 256),
            (".25 vCPU", 256),
            ("0.25vcpu", 256),
            ("1 vCPU", 1024),
            ("4vcpu", 4096),
        ] {
            assert_eq!(parse_cpu(text), Some(units), "{text}");
        }
        for (text, mib) in [
            ("512", 512),
            ("0.5 GB", 512),
            ("1GB", 1024),
            ("30 gb", 30720),
        ] {
            assert_eq!(parse_memory(text), Some(mib), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_none() {
        for text in [
            "", "x", "-256", "vCPU", "1 GB", "1e3", "0.3 vCPU", "1.5", "nan vcpu",
        ] {
            assert_eq!(parse_cpu(text), None, "{text}");
        }
        assert_eq!(parse_memory("1 MB"), None);
    }
}
