//! Lifecycle policies: what a document means, and which images it expires.
//!
//! What always holds: the answer follows from the document, the images and the time alone, so a
//! preview and the enforcement cannot differ. Every image is expired by at most one rule, the one
//! of the highest priority whose tags it matches; older images go before newer ones.
//! What it leaves to others: removing (`collection`), and images that an index still needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_env::Timestamp;
use serde::Deserialize;

use super::immutability::wildcard;

/// As AWS documents them.
const RULES_MAX: usize = 50;
const WILDCARDS_MAX: usize = 4;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A document that has been checked. Its rules stand in the order of their priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecyclePolicy {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    priority: u32,
    tags: TagSelection,
    count: Count,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TagSelection {
    Any,
    Untagged,
    /// For each of these the image has a tag that begins so.
    Prefixes(Vec<String>),
    /// For each of these the image has a tag that matches it.
    Patterns(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// The newest so many stay.
    MoreThan(u64),
    SincePushed(Duration),
    SincePulled(Duration),
}

/// An image as the rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub digest: super::Digest,
    pub tags: Vec<String>,
    pub pushed_at: Timestamp,
    pub pulled_at: Option<Timestamp>,
}

/// An image that a rule expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Its place in the list of candidates.
    pub candidate: usize,
    pub rule_priority: u32,
}

/// What is wrong with a document, in words for its author.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Lifecycle policy validation failure: {0}")]
pub struct PolicyError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<RuleDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleDocument {
    rule_priority: u32,
    #[serde(default)]
    #[expect(dead_code, reason = "it is for people, and only has to be text")]
    description: Option<String>,
    selection: Selection,
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    tag_status: String,
    #[serde(default)]
    tag_prefix_list: Vec<String>,
    #[serde(default)]
    tag_pattern_list: Vec<String>,
    #[serde(default)]
    storage_class: Option<String>,
    count_type: String,
    #[serde(default)]
    count_unit: Option<String>,
    count_number: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Action {
    r#type: String,
    #[serde(default)]
    target_storage_class: Option<String>,
}

impl LifecyclePolicy {
    /// Reads a document, or says which rule of the language it breaks.
    pub fn parse(text: &str) -> Result<LifecyclePolicy, PolicyError> {
        let document: Document =
            serde_json::from_str(text).map_err(|error| PolicyError(error.to_string()))?;
        if document.rules.is_empty() || document.rules.len() > RULES_MAX {
            let found = document.rules.len();
            return Err(PolicyError(format!(
                "a policy has 1 to {RULES_MAX} rules, this one has {found}"
            )));
        }
        let mut by_priority = BTreeMap::new();
        for rule in document.rules {
            let rule = Rule::read(rule)?;
            let priority = rule.priority;
            if by_priority.insert(priority, rule).is_some() {
                return Err(PolicyError(format!(
                    "rulePriority {priority} is used more than once"
                )));
            }
        }
        let rules: Vec<Rule> = by_priority.into_values().collect();
        check_together(&rules)?;
        Ok(LifecyclePolicy { rules })
    }

    /// The images that expire at `now`, oldest first within each rule.
    pub fn expiring(&self, images: &[Candidate], now: Timestamp) -> Vec<Expiry> {
        let mut taken: BTreeSet<usize> = BTreeSet::new();
        let mut expired = Vec::new();
        for rule in &self.rules {
            let mut matching: Vec<usize> = (0..images.len())
                .filter(|place| rule.tags.matches(&images[*place].tags))
                .collect();
            // The digest makes the order one also among images of the same moment.
            matching.sort_by_key(|place| (images[*place].pushed_at, &images[*place].digest));
            let too_many = match rule.count {
                Count::MoreThan(keep) => {
                    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
                    matching.len().saturating_sub(keep)
                }
                _ => matching.len(),
            };
            for place in &matching[..too_many] {
                if !taken.contains(place) && rule.count.is_over(&images[*place], now) {
                    expired.push(Expiry {
                        candidate: *place,
                        rule_priority: rule.priority,
                    });
                }
            }
            // What matches a rule is out of the reach of every later one, expired or not.
            taken.extend(matching);
        }
        expired
    }
}

/// What must hold between the rules of one policy.
fn check_together(rules: &[Rule]) -> Result<(), PolicyError> {
    let last = rules.last().map(|rule| rule.priority);
    let mut untagged = false;
    let mut selections: BTreeSet<&[String]> = BTreeSet::new();
    for rule in rules {
        match &rule.tags {
            TagSelection::Any if Some(rule.priority) != last => {
                return Err(PolicyError(
                    "a rule with tagStatus 'any' must have the highest value of rulePriority"
                        .to_owned(),
                ));
            }
            TagSelection::Any => {}
            TagSelection::Untagged if untagged => {
                return Err(PolicyError(
                    "only one rule may select untagged images".to_owned(),
                ));
            }
            TagSelection::Untagged => untagged = true,
            TagSelection::Prefixes(list) | TagSelection::Patterns(list) => {
                if !selections.insert(list) {
                    return Err(PolicyError(format!(
                        "two rules select the same tags: {}",
                        list.join(", ")
                    )));
                }
            }
        }
    }
    Ok(())
}

impl Rule {
    fn read(rule: RuleDocument) -> Result<Rule, PolicyError> {
        let RuleDocument {
            rule_priority: priority,
            description: _,
            selection,
            action,
        } = rule;
        let wrong = |what: String| PolicyError(format!("rule {priority}: {what}"));
        if priority == 0 {
            return Err(wrong("rulePriority must be at least 1".to_owned()));
        }
        if action.r#type != "expire" || action.target_storage_class.is_some() {
            return Err(wrong(format!(
                "action '{}' is not built in Gantry yet; use 'expire'",
                action.r#type
            )));
        }
        if let Some(class) = selection
            .storage_class
            .as_deref()
            .filter(|class| *class != "standard")
        {
            return Err(wrong(format!(
                "storageClass '{class}' is not built in Gantry yet; there is only 'standard'"
            )));
        }
        let count = selection.count().map_err(&wrong)?;
        let tags = selection.tags().map_err(&wrong)?;
        Ok(Rule {
            priority,
            tags,
            count,
        })
    }
}

impl Selection {
    fn count(&self) -> Result<Count, String> {
        if self.count_number == 0 {
            return Err("countNumber must be greater than 0".to_owned());
        }
        let days = || match self.count_unit.as_deref() {
            Some("days") => u32::try_from(self.count_number)
                .map(|days| DAY * days)
                .map_err(|_| "countNumber is too large".to_owned()),
            Some(other) => Err(format!("countUnit '{other}' is not 'days'")),
            None => Err(format!(
                "countType '{}' needs countUnit 'days'",
                self.count_type
            )),
        };
        match self.count_type.as_str() {
            "imageCountMoreThan" if self.count_unit.is_some() => {
                Err("countUnit does not go with countType 'imageCountMoreThan'".to_owned())
            }
            "imageCountMoreThan" => Ok(Count::MoreThan(self.count_number)),
            "sinceImagePushed" => days().map(Count::SincePushed),
            "sinceImagePulled" => days().map(Count::SincePulled),
            other => Err(format!(
                "countType '{other}' is none of imageCountMoreThan, sinceImagePushed, sinceImagePulled"
            )),
        }
    }

    fn tags(self) -> Result<TagSelection, String> {
        let (prefixes, patterns) = (self.tag_prefix_list, self.tag_pattern_list);
        let none = prefixes.is_empty() && patterns.is_empty();
        match self.tag_status.as_str() {
            "any" | "untagged" if !none => Err(format!(
                "tagPrefixList and tagPatternList do not go with tagStatus '{}'",
                self.tag_status
            )),
            "any" => Ok(TagSelection::Any),
            "untagged" => Ok(TagSelection::Untagged),
            "tagged" if none => {
                Err("tagStatus 'tagged' needs a tagPrefixList or a tagPatternList".to_owned())
            }
            "tagged" if !prefixes.is_empty() && !patterns.is_empty() => {
                Err("a rule has either a tagPrefixList or a tagPatternList".to_owned())
            }
            "tagged" if patterns.is_empty() => Ok(TagSelection::Prefixes(sorted(prefixes))),
            "tagged" => {
                let many = |pattern: &&String| pattern.matches('*').count() > WILDCARDS_MAX;
                match patterns.iter().find(many) {
                    Some(pattern) => Err(format!(
                        "the pattern '{pattern}' has more than {WILDCARDS_MAX} wildcards"
                    )),
                    None => Ok(TagSelection::Patterns(sorted(patterns))),
                }
            }
            other => Err(format!(
                "tagStatus '{other}' is none of tagged, untagged, any"
            )),
        }
    }
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list.dedup();
    list
}

impl TagSelection {
    fn matches(&self, tags: &[String]) -> bool {
        match self {
            TagSelection::Any => true,
            TagSelection::Untagged => tags.is_empty(),
            TagSelection::Prefixes(prefixes) => prefixes
                .iter()
                .all(|prefix| tags.iter().any(|tag| tag.starts_with(prefix))),
            TagSelection::Patterns(patterns) => patterns
                .iter()
                .all(|pattern| tags.iter().any(|tag| wildcard(pattern, tag))),
        }
    }
}

impl Count {
    fn is_over(self, image: &Candidate, now: Timestamp) -> bool {
        match self {
            Count::MoreThan(_) => true,
            Count::SincePushed(age) => now - image.pushed_at > age,
            // What was never pulled counts from its push.
            Count::SincePulled(age) => now - image.pulled_at.unwrap_or(image.pushed_at) > age,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Digest;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn image(number: u8, tags: &[&str], age_days: i64) -> Candidate {
        Candidate {
            digest: Digest::of(&[number]),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            pushed_at: Timestamp::from_millis(1_000 * DAY_MS - age_days * DAY_MS),
            pulled_at: None,
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000 * DAY_MS)
    }

    fn policy(rules: &[&str]) -> Result<LifecyclePolicy, PolicyError> {
        LifecyclePolicy::parse(&format!(r#"{{"rules":[{}]}}"#, rules.join(",")))
    }

    fn rule(priority: u32, selection: &str) -> String {
        format!(
            r#"{{"rulePriority":{priority},"selection":{{{selection}}},"action":{{"type":"expire"}}}}"#
        )
    }

    fn expired(policy: &LifecyclePolicy, images: &[Candidate]) -> Vec<(usize, u32)> {
        let expiries = policy.expiring(images, now());
        expiries
            .iter()
            .map(|expiry| (expiry.candidate, expiry.rule_priority))
            .collect()
    }

    #[test]
    fn the_newest_stay_and_the_oldest_go_first() {
        let rules = rule(
            1,
            r#""tagStatus":"any","countType":"imageCountMoreThan","countNumber":2"#,
        );
        let images = [
            image(1, &[], 1),
            image(2, &["a"], 9),
            image(3, &["b"], 5),
            image(4, &[], 7),
        ];
        let policy = policy(&[&rules]).unwrap();
        assert_eq!(expired(&policy, &images), [(1, 1), (3, 1)]);
    }

    #[test]
    fn an_image_that_matches_a_rule_is_out_of_the_reach_of_later_ones() {
        let first = rule(
            1,
            r#""tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":1"#,
        );
        let second = rule(
            2,
            r#""tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":3"#,
        );
        let images = [
            image(1, &["prod-1"], 100),
            image(2, &["prod-2"], 50),
            image(3, &["test-1"], 4),
            image(4, &["test-2"], 3),
        ];
        let policy = policy(&[&second, &first]).unwrap();
        // The newest of prod stays although it is old; what is exactly three days old stays too.
        assert_eq!(expired(&policy, &images), [(0, 1), (2, 2)]);
    }

    #[test]
    fn every_prefix_and_every_pattern_must_match() {
        let both = rule(
            1,
            r#""tagStatus":"tagged","tagPrefixList":["a","b"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1"#,
        );
        let pattern = rule(
            2,
            r#""tagStatus":"tagged","tagPatternList":["v*.0"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1"#,
        );
        let untagged = rule(
            3,
            r#""tagStatus":"untagged","countType":"sinceImagePulled","countUnit":"days","countNumber":1"#,
        );
        let mut pulled = image(5, &[], 9);
        pulled.pulled_at = Some(now());
        let images = [
            image(1, &["a1"], 9),
            image(2, &["a1", "b1"], 9),
            image(3, &["v1.0"], 9),
            image(4, &[], 9),
            pulled,
        ];
        let policy = policy(&[&both, &pattern, &untagged]).unwrap();
        assert_eq!(expired(&policy, &images), [(1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn what_breaks_the_language_is_refused_by_name() {
        let any = r#""tagStatus":"any","countType":"imageCountMoreThan","countNumber":1"#;
        let untagged = r#""tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1"#;
        for (rules, expected) in [
            (vec![rule(1, any), rule(2, untagged)], "highest value"),
            (vec![rule(1, any), rule(1, untagged)], "more than once"),
            (vec![rule(1, untagged), rule(2, untagged)], "only one rule"),
            (vec![rule(0, any)], "at least 1"),
            (
                vec![rule(
                    1,
                    r#""tagStatus":"tagged","countType":"imageCountMoreThan","countNumber":1"#,
                )],
                "needs a tagPrefixList",
            ),
            (
                vec![rule(
                    1,
                    r#""tagStatus":"any","countType":"sinceImagePushed","countNumber":1"#,
                )],
                "countUnit",
            ),
            (
                vec![rule(
                    1,
                    r#""tagStatus":"any","countType":"imageCountMoreThan","countNumber":0"#,
                )],
                "greater than 0",
            ),
            (
                vec![rule(
                    1,
                    r#""tagStatus":"any","countType":"imageCountMoreThan","countNumber":1,"x":1"#,
                )],
                "unknown field",
            ),
            (vec![], "1 to 50 rules"),
        ] {
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let error = policy(&rules).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = LifecyclePolicy::parse(&text);
        }

        #[test]
        fn an_image_expires_once_and_a_second_look_expires_no_newer_ones(
            ages in proptest::collection::vec((0_i64..40, 0_u8..4), 0..30),
            keep in 1_u64..5,
        ) {
            let images: Vec<Candidate> = ages
                .iter()
                .enumerate()
                .map(|(number, (age, tag))| {
                    let tags: &[&str] = [&[][..], &["a"], &["b"], &["a", "b"]][usize::from(*tag)];
                    image(u8::try_from(number).unwrap(), tags, *age)
                })
                .collect();
            let rules = [
                rule(1, &format!(r#""tagStatus":"tagged","tagPrefixList":["a"],"countType":"imageCountMoreThan","countNumber":{keep}"#)),
                rule(2, r#""tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":10"#),
            ];
            let policy = policy(&[&rules[0], &rules[1]]).unwrap();
            let expired = expired(&policy, &images);
            let mut once: Vec<usize> = expired.iter().map(|(place, _)| *place).collect();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), expired.len());
            let left: Vec<Candidate> = (0..images.len())
                .filter(|place| !once.contains(place))
                .map(|place| images[place].clone())
                .collect();
            prop_assert!(policy.expiring(&left, now()).is_empty());
        }
    }
}
