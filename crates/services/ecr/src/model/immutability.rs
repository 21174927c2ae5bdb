//! Whether a tag may be moved to another image.

use serde::{Deserialize, Serialize};

use super::ImageTag;

/// A repository's setting. The filters name the tags for which the opposite holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagMutability {
    Mutable,
    Immutable,
    ImmutableExcept(Vec<String>),
    MutableExcept(Vec<String>),
}

impl TagMutability {
    /// True if an existing tag of this name may be moved.
    pub fn may_move(&self, tag: &ImageTag) -> bool {
        let matched = |filters: &[String]| filters.iter().any(|f| wildcard(f, tag.as_str()));
        match self {
            Self::Mutable => true,
            Self::Immutable => false,
            Self::ImmutableExcept(filters) => matched(filters),
            Self::MutableExcept(filters) => !matched(filters),
        }
    }
}

/// `*` stands for any run of characters. Greedy with one place to go back to, so the work is
/// bounded by the product of both lengths whatever the filter.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((star, matched)) => {
                    p = star + 1;
                    t = matched + 1;
                    last_star = Some((star, matched + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_turn_the_setting_around() {
        let tag = |t: &str| t.parse::<ImageTag>().unwrap();
        let filters = vec!["dev-*".to_owned(), "latest".to_owned()];
        let immutable = TagMutability::ImmutableExcept(filters.clone());
        assert!(immutable.may_move(&tag("dev-1")) && immutable.may_move(&tag("latest")));
        assert!(!immutable.may_move(&tag("v1")) && !immutable.may_move(&tag("latest2")));
        let mutable = TagMutability::MutableExcept(filters);
        assert!(mutable.may_move(&tag("v1")) && !mutable.may_move(&tag("dev-")));
    }

    #[test]
    fn wildcards_match_as_expected() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("*ab", "aaab", true),
            ("a**", "a", true),
            ("", "a", false),
            ("*.*", "v1.2", true),
        ] {
            assert_eq!(wildcard(pattern, text), expected, "{pattern} {text}");
        }
    }
}
