//! Names that users choose, each with AWS's rule for it.
//!
//! The rules are AWS's documented ones; the message a caller reads when one is broken belongs to
//! the service, because every service words it differently.

use crate::text::{checked_text, made_of};

fn is_ecs_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

checked_text!(
    /// A cluster's name. The cluster named `default` is meant where none is given.
    ClusterName,
    "a cluster name of up to 255 letters, digits, hyphens and underscores",
    |value| made_of(value, 1, 255, is_ecs_name_byte)
);

impl Default for ClusterName {
    fn default() -> Self {
        Self("default".into())
    }
}

checked_text!(
    /// A task definition's family.
    Family,
    "a family name of up to 255 letters, digits, hyphens and underscores",
    |value| made_of(value, 1, 255, is_ecs_name_byte)
);

checked_text!(
    /// A service's name.
    ServiceName,
    "a service name of up to 255 letters, digits, hyphens and underscores",
    |value| made_of(value, 1, 255, is_ecs_name_byte)
);

checked_text!(
    /// A log group's name.
    LogGroupName,
    "a log group name of up to 512 letters, digits and . - _ / #",
    |value| made_of(value, 1, 512, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b'#')
    })
);

checked_text!(
    /// A log stream's name.
    LogStreamName,
    "a log stream name of up to 512 characters without ':', '*' and control characters",
    |value| {
        (1..=512).contains(&value.chars().count())
            && !value
                .chars()
                .any(|c| c == ':' || c == '*' || c.is_control())
    }
);

checked_text!(
    /// The name of an IAM role.
    RoleName,
    "a role name of up to 64 letters, digits and + = , . @ _ -",
    |value| made_of(value, 1, 64, |b| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'+' | b'=' | b',' | b'.' | b'@' | b'_' | b'-')
    })
);

checked_text!(
    /// The name of an ECR repository: parts joined by `/`, each of lower-case words joined by
    /// one of `.`, `_`, `__` or hyphens.
    RepositoryName,
    "a repository name of 2 to 256 lower-case letters and digits, with single separators . _ - / between them",
    |value| (2..=256).contains(&value.len()) && value.split('/').all(is_repository_part)
);

fn is_repository_part(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    // Runs between words: one of `.`, `_`, `__`, or any number of hyphens.
    bytes.split(|b| is_word(*b)).all(|run| {
        run.is_empty()
            || run == b"."
            || run == b"_"
            || run == b"__"
            || run.iter().all(|b| *b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_follow_the_rule() {
        assert_eq!(ClusterName::default().as_str(), "default");
        assert!(ClusterName::new("My_cluster-1").is_ok());
        assert!(ClusterName::new("a".repeat(255)).is_ok());
        for bad in ["", "a b", "a/b", "a.b", &"a".repeat(256)] {
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn repository_names_follow_the_distribution_rule() {
        for good in ["ab", "a/b", "team/app.web", "a__b", "a---b", "1/2/3"] {
            assert!(RepositoryName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "a", "A/b", "a//b", "/ab", "ab/", "a..b", "a___b", "a._b", "-ab", "ab_",
        ] {
            assert!(RepositoryName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_names_follow_their_rules() {
        assert!(LogGroupName::new("/ecs/app#1").is_ok());
        assert!(LogGroupName::new("a b").is_err());
        assert!(LogStreamName::new("app/web/0123 ü").is_ok());
        assert!(LogStreamName::new("a:b").is_err());
        assert!(LogStreamName::new("a*").is_err());
    }
}
