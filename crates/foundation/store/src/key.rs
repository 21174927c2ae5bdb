//! Names of rows, and of sets of rows.
//!
//! A key is kept as one text, its parts joined by NUL, which none of the first four may contain.
//! So comparing two keys is comparing two texts, the order is that of the parts, and the rows of
//! one table in one region stand together.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use gantry_arn::{AccountId, Region};

/// Which row: account, region, service, kind and name.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    /// Where region, service, kind and name begin in `text`.
    starts: [u16; 4],
}

impl Key {
    /// `service` and `kind` are constants of a program, without NUL; `name` may be any text.
    pub fn new(
        account: &AccountId,
        region: &Region,
        service: &str,
        kind: &str,
        name: &str,
    ) -> Self {
        Self::from_parts([account.as_str(), region.as_str(), service, kind, name])
    }

    pub(crate) fn from_parts(parts: [&str; 5]) -> Self {
        debug_assert!(
            parts[..4]
                .iter()
                .all(|part| !part.contains('\0') && part.len() < 4096)
        );
        let mut starts = [0; 4];
        let mut at = 0;
        for (start, part) in starts.iter_mut().zip(parts) {
            at += part.len() + 1;
            // The first four parts are checked names and constants, each far below 16 KiB.
            *start = u16::try_from(at).unwrap_or(u16::MAX);
        }
        Self {
            text: parts.join("\0").into(),
            starts,
        }
    }

    /// Where the keys that begin with `text` would begin. Only good for comparing.
    pub(crate) fn least_of(text: &str) -> Self {
        Self {
            text: text.into(),
            starts: [0; 4],
        }
    }

    pub fn account(&self) -> AccountId {
        self.part(0).parse().unwrap_or_default()
    }

    pub fn region(&self) -> Region {
        self.part(1).parse().unwrap_or_default()
    }

    pub fn service(&self) -> &str {
        self.part(2)
    }

    pub fn kind(&self) -> &str {
        self.part(3)
    }

    pub fn name(&self) -> &str {
        self.part(4)
    }

    pub(crate) fn part(&self, index: usize) -> &str {
        let from = match index {
            0 => 0,
            _ => usize::from(self.starts[index - 1]),
        };
        match self.starts.get(index) {
            Some(next) => &self.text[from..usize::from(*next) - 1],
            None => &self.text[from..],
        }
    }

    /// Account and region with the separator after them: what all rows of one place begin with.
    pub(crate) fn place(&self) -> &str {
        &self.text[..usize::from(self.starts[1])]
    }

    /// Service, kind and name: what comes after the place.
    fn within_place(&self) -> &str {
        &self.text[usize::from(self.starts[1])..]
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// The parts joined by slashes, for people. A name may itself contain slashes.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [0, 1, 2, 3, 4].map(|index| self.part(index));
        write!(f, "{}", parts.join("/"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of keys that begin alike: of one account, region, service, kind or beginning of a name,
/// or of one service or kind in every account and region.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    scope: Scope,
    text: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scope {
    /// `text` is the beginning of whole keys.
    OnePlace,
    /// `text` is the beginning of what follows account and region.
    EveryPlace,
}

impl Prefix {
    /// Every row there is.
    pub fn all() -> Self {
        Self::of(Scope::OnePlace, "".into())
    }

    pub fn account(account: &AccountId) -> Self {
        Self::of(Scope::OnePlace, format!("{account}\0"))
    }

    pub fn region(account: &AccountId, region: &Region) -> Self {
        Self::of(Scope::OnePlace, format!("{account}\0{region}\0"))
    }

    pub fn service(account: &AccountId, region: &Region, service: &str) -> Self {
        Self::of(Scope::OnePlace, format!("{account}\0{region}\0{service}\0"))
    }

    /// All rows of one table in one region.
    pub fn kind(account: &AccountId, region: &Region, service: &str, kind: &str) -> Self {
        Self::names(account, region, service, kind, "")
    }

    /// The rows of one table in one region whose names begin with `name_prefix`.
    pub fn names(
        account: &AccountId,
        region: &Region,
        service: &str,
        kind: &str,
        name_prefix: &str,
    ) -> Self {
        let text = format!("{account}\0{region}\0{service}\0{kind}\0{name_prefix}");
        Self::of(Scope::OnePlace, text)
    }

    /// All rows of one table, whatever their account and region: what controllers watch.
    pub fn everywhere(service: &str, kind: &str) -> Self {
        Self::of(Scope::EveryPlace, format!("{service}\0{kind}\0"))
    }

    /// All rows of one service, whatever their account and region.
    pub fn service_everywhere(service: &str) -> Self {
        Self::of(Scope::EveryPlace, format!("{service}\0"))
    }

    pub fn matches(&self, key: &Key) -> bool {
        match self.scope {
            Scope::OnePlace => key.text().starts_with(&*self.text),
            Scope::EveryPlace => key.within_place().starts_with(&*self.text),
        }
    }

    fn of(scope: Scope, text: String) -> Self {
        Self {
            scope,
            text: text.into(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_everywhere(&self) -> bool {
        self.scope == Scope::EveryPlace
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_everywhere() { "*/*/" } else { "" };
        write!(f, "{place}{}*", self.text.replace('\0', "/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(region: &str, service: &str, kind: &str, name: &str) -> Key {
        let region = Region::new(region).unwrap();
        Key::new(&AccountId::default(), &region, service, kind, name)
    }

    #[test]
    fn a_key_gives_its_parts_back() {
        let key = key("eu-west-1", "ecs", "task", "default/ab\0c");
        assert_eq!(key.account(), AccountId::default());
        assert_eq!(key.region().as_str(), "eu-west-1");
        assert_eq!((key.service(), key.kind()), ("ecs", "task"));
        assert_eq!(key.name(), "default/ab\0c");
    }

    #[test]
    fn keys_are_ordered_part_by_part() {
        // As one text without separators, "ecs" + "task" would come after "ecs" + "tas".
        let mut keys = [
            key("us-east-1", "ecs", "task", ""),
            key("us-east-1", "ecs", "tas", "z"),
            key("eu-west-1", "z", "z", "z"),
        ];
        keys.sort();
        assert_eq!(keys[0].region().as_str(), "eu-west-1");
        assert_eq!((keys[1].kind(), keys[2].kind()), ("tas", "task"));
    }

    #[test]
    fn a_prefix_holds_whole_parts_only() {
        let (account, region) = (AccountId::default(), Region::default());
        let task = key("us-east-1", "ecs", "task", "default/1");
        let report = key("us-east-1", "ecs", "task-report", "default/1");
        let tasks = Prefix::kind(&account, &region, "ecs", "task");
        assert!(tasks.matches(&task) && !tasks.matches(&report));
        assert!(Prefix::names(&account, &region, "ecs", "task", "def").matches(&task));
        assert!(!Prefix::names(&account, &region, "ecs", "task", "other/").matches(&task));
        assert!(Prefix::everywhere("ecs", "task").matches(&task));
        assert!(!Prefix::everywhere("ecs", "task").matches(&report));
        assert!(Prefix::service_everywhere("ecs").matches(&report));
        assert!(Prefix::all().matches(&task) && Prefix::account(&account).matches(&task));
    }
}
