//! Why operations are not built, where there is more to say than "not yet".
//!
//! What always holds: `gantry coverage --all` and the error of a call give the same reason, and every operation
//! that is named here is one that is not built.

/// Service, operation, reason.
const REASONS: &[(&str, &str, &str)] = &[
    (
        "sts",
        "AssumeRoot",
        "it needs an organization with central root access, and there is no AWS Organizations here",
    ),
    (
        "sts",
        "GetDelegatedAccessToken",
        "trade-in tokens come from AWS's own delegation requests, and nothing here hands any out",
    ),
    (
        "sts",
        "GetWebIdentityToken",
        "no keys are published here by which others could verify such a token",
    ),
];

pub fn reason(service: &str, operation: &str) -> Option<&'static str> {
    let mut reasons = REASONS.iter();
    reasons
        .find(|(of, named, _)| *of == service && *named == operation)
        .map(|(_, _, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_of_operations_that_are_not_built() {
        let coverage = crate::coverage();
        for (service, operation, _) in REASONS {
            let of = coverage.iter().find(|known| known.service == *service);
            let of = of.expect("a service");
            assert!(of.not_built.contains(operation), "{operation} is built");
        }
    }
}
