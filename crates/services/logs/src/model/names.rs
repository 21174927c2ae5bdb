//! How callers name a log group: by name, or by an ARN with or without the `:*` behind it.

use gantry_arn::{AccountId, Arn, LogGroupName, LogStreamName, Region};

/// The ARN of a group without `:*`, which newer members of the API carry.
pub fn group_arn(region: &Region, account: &AccountId, group: &LogGroupName) -> Arn {
    Arn::new("logs", region, account, format!("log-group:{group}"))
}

/// The ARN of a group with `:*`, which the older `arn` member carries.
pub fn group_arn_with_star(region: &Region, account: &AccountId, group: &LogGroupName) -> Arn {
    Arn::new("logs", region, account, format!("log-group:{group}:*"))
}

pub fn stream_arn(
    region: &Region,
    account: &AccountId,
    group: &LogGroupName,
    stream: &LogStreamName,
) -> Arn {
    Arn::new(
        "logs",
        region,
        account,
        format!("log-group:{group}:log-stream:{stream}"),
    )
}

/// Reads a group's ARN of this account and region.
pub fn group_of_arn(
    text: &str,
    region: &Region,
    account: &AccountId,
) -> Result<LogGroupName, NotAGroup> {
    let arn: Arn = text.parse().map_err(|_| NotAGroup::Malformed)?;
    let name = arn
        .resource
        .strip_prefix("log-group:")
        .map(|name| name.strip_suffix(":*").unwrap_or(name))
        .filter(|_| arn.service == "logs")
        .ok_or(NotAGroup::Malformed)?;
    let name = name.parse().map_err(|_| NotAGroup::Malformed)?;
    if arn.region != region.as_str() || arn.account != account.as_str() {
        return Err(NotAGroup::Elsewhere);
    }
    Ok(name)
}

/// Reads a `logGroupIdentifier`: a name or an ARN.
pub fn group_of_identifier(
    text: &str,
    region: &Region,
    account: &AccountId,
) -> Result<LogGroupName, NotAGroup> {
    if text.starts_with("arn:") {
        return group_of_arn(text, region, account);
    }
    text.parse().map_err(|_| NotAGroup::Malformed)
}

/// Why a text does not name a group here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAGroup {
    Malformed,
    /// A group of another account or region.
    Elsewhere,
}

/// Names that begin like this belong to AWS itself.
pub fn is_reserved(group: &LogGroupName) -> bool {
    group
        .as_str()
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("aws/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_groups_arn_lead_to_it() {
        let (region, account) = (Region::default(), AccountId::default());
        let group: LogGroupName = "/ecs/app".parse().unwrap();
        for arn in [
            group_arn(&region, &account, &group),
            group_arn_with_star(&region, &account, &group),
        ] {
            assert_eq!(
                group_of_identifier(&arn.to_string(), &region, &account),
                Ok(group.clone())
            );
        }
        assert_eq!(
            group_of_identifier("/ecs/app", &region, &account),
            Ok(group.clone())
        );
        assert_eq!(
            group_of_arn(
                "arn:aws:logs:eu-west-1:000000000000:log-group:/ecs/app",
                &region,
                &account
            ),
            Err(NotAGroup::Elsewhere)
        );
        for bad in [
            "arn:aws:logs:us-east-1:000000000000:destination:x",
            "arn:aws:ecs:us-east-1:000000000000:log-group:x",
            "arn:aws:logs:us-east-1:000000000000:log-group:a b",
            "arn:",
            "a b",
        ] {
            assert_eq!(
                group_of_identifier(bad, &region, &account),
                Err(NotAGroup::Malformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_the_reserved_prefix_is_reserved() {
        for (name, reserved) in [
            ("aws/x", true),
            ("AWS/x", true),
            ("/aws/ecs", false),
            ("aws", false),
        ] {
            assert_eq!(is_reserved(&name.parse().unwrap()), reserved, "{name}");
        }
    }
}
