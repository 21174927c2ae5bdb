//! Lifecycle policies at work: which images of a repository expire, and their removal.
//!
//! What always holds: the same images expire in a preview and in truth; an image stays as long as
//! an index that stays names it; what is about an image (a signature, say) goes when that image
//! goes and not by a rule of its own; an index goes no later than the images that it names, so a
//! removal that is cut off leaves no index without its images.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gantry_env::Timestamp;
use gantry_store::{Snapshot, Transaction, Versioned};

use crate::collection::{ROWS_AT_ONCE, Step, change_content};
use crate::model::Digest;
use crate::model::lifecycle::{Candidate, LifecyclePolicy};
use crate::tables::{ImageRow, LifecycleRow, PullRow, RepositoryRow, TagRow};

/// How old the recorded time of the last evaluation may become while nothing expires.
const RECORD_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// An image that goes.
pub struct Expired {
    pub image: Versioned<ImageRow>,
    pub tags: Vec<Versioned<TagRow>>,
    /// None for what goes along with the image that it is about.
    pub rule_priority: Option<u32>,
}

/// A repository's images as they stand in a snapshot.
struct Content {
    images: Vec<Versioned<ImageRow>>,
    by_digest: BTreeMap<Digest, usize>,
    tags: BTreeMap<Digest, Vec<Versioned<TagRow>>>,
    /// What is about each image that is there.
    about: BTreeMap<Digest, Vec<usize>>,
}

impl Content {
    fn read(snapshot: &Snapshot, repository: &Versioned<RepositoryRow>) -> Content {
        let (account, region) = (repository.key.account(), repository.key.region());
        let names = format!("{}@", repository.id);
        let images = snapshot.list_prefix::<ImageRow>(&account, &region, &names);
        let by_digest: BTreeMap<Digest, usize> = images
            .iter()
            .enumerate()
            .map(|(place, image)| (image.digest.clone(), place))
            .collect();
        let mut tags: BTreeMap<Digest, Vec<Versioned<TagRow>>> = BTreeMap::new();
        let names = format!("{}:", repository.id);
        for tag in snapshot.list_prefix::<TagRow>(&account, &region, &names) {
            tags.entry(tag.digest.clone()).or_default().push(tag);
        }
        let mut about: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (place, image) in images.iter().enumerate() {
            let subject = image.manifest.subject.as_ref();
            if let Some(subject) = subject.filter(|subject| by_digest.contains_key(*subject)) {
                about.entry(subject.clone()).or_default().push(place);
            }
        }
        Content {
            images,
            by_digest,
            tags,
            about,
        }
    }

    fn goes_along(&self, image: &ImageRow) -> bool {
        let subject = image.manifest.subject.as_ref();
        subject.is_some_and(|subject| self.by_digest.contains_key(subject))
    }

    fn named_by(&self, place: usize) -> impl Iterator<Item = usize> {
        let listed = self.images[place].manifest.manifests().iter();
        listed.filter_map(|content| self.by_digest.get(&content.digest).copied())
    }

    fn about(&self, place: usize) -> &[usize] {
        let about = self.about.get(&self.images[place].digest);
        about.map_or(&[], Vec::as_slice)
    }

    /// What the rules see.
    fn candidates(
        &self,
        snapshot: &Snapshot,
        repository: &Versioned<RepositoryRow>,
        pushed_until: Option<Timestamp>,
    ) -> (Vec<usize>, Vec<Candidate>) {
        let (account, region) = (repository.key.account(), repository.key.region());
        let names = format!("{}@", repository.id);
        let pulls = snapshot.list_prefix::<PullRow>(&account, &region, &names);
        let pulls: BTreeMap<&str, Timestamp> =
            pulls.iter().map(|pull| (pull.name(), pull.at)).collect();
        let seen = self.images.iter().enumerate().filter(|(_, image)| {
            pushed_until.is_none_or(|until| image.pushed_at <= until) && !self.goes_along(image)
        });
        seen.map(|(place, image)| {
            let tags = self.tags.get(&image.digest).into_iter().flatten();
            let candidate = Candidate {
                digest: image.digest.clone(),
                tags: tags.map(|tag| tag.tag.to_string()).collect(),
                pushed_at: image.pushed_at,
                pulled_at: pulls.get(image.key.name()).copied(),
            };
            (place, candidate)
        })
        .unzip()
    }
}

/// The images that a policy expires at `now`, of those that were pushed until a given time, each
/// index before the images that it names. `also` goes whatever the rules say.
pub fn expired(
    snapshot: &Snapshot,
    repository: &Versioned<RepositoryRow>,
    policy: &LifecyclePolicy,
    now: Timestamp,
    pushed_until: Option<Timestamp>,
    also: Option<&Digest>,
) -> Vec<Expired> {
    let content = Content::read(snapshot, repository);
    let (places, candidates) = content.candidates(snapshot, repository, pushed_until);
    let mut going: BTreeMap<usize, Option<u32>> = BTreeMap::new();
    let mut order: Vec<usize> = Vec::new();
    if let Some(place) = also.and_then(|digest| content.by_digest.get(digest)) {
        going.insert(*place, None);
        order.push(*place);
    }
    for expiry in policy.expiring(&candidates, now) {
        let place = places[expiry.candidate];
        if going.insert(place, Some(expiry.rule_priority)).is_none() {
            order.push(place);
        }
    }
    // The list grows while it is walked: what is about an image that goes may have something
    // about itself.
    let mut at = 0;
    while at < order.len() {
        for place in content.about(order[at]) {
            if !going.contains_key(place) {
                going.insert(*place, None);
                order.push(*place);
            }
        }
        at += 1;
    }
    keep_what_is_needed(&content, &mut going);
    order.retain(|place| going.contains_key(place));
    indexes_first(&content, &mut order);
    order
        .into_iter()
        .map(|place| {
            let image = content.images[place].clone();
            Expired {
                tags: content.tags.get(&image.digest).cloned().unwrap_or_default(),
                rule_priority: going[&place],
                image,
            }
        })
        .collect()
}

/// Takes out of `going` what an index that stays names, and what is about that.
fn keep_what_is_needed(content: &Content, going: &mut BTreeMap<usize, Option<u32>>) {
    let stays = |place: &usize| !going.contains_key(place);
    let mut kept: VecDeque<usize> = (0..content.images.len()).filter(stays).collect();
    while let Some(place) = kept.pop_front() {
        let about = content.about(place).iter().copied();
        // What came in by a rule is decided on by that rule: only what goes along stays along.
        let along: Vec<usize> = about
            .filter(|place| going.get(place) == Some(&None))
            .collect();
        for place in content.named_by(place).chain(along) {
            if going.remove(&place).is_some() {
                kept.push_back(place);
            }
        }
    }
}

/// Puts each index before what it names, and else keeps the order. There are no circles: an index
/// holds the digests of what it names.
fn indexes_first(content: &Content, order: &mut Vec<usize>) {
    let going: BTreeSet<usize> = order.iter().copied().collect();
    let mut waits_for: BTreeMap<usize, usize> = BTreeMap::new();
    for place in order.iter() {
        for named in content
            .named_by(*place)
            .filter(|named| going.contains(named))
        {
            *waits_for.entry(named).or_default() += 1;
        }
    }
    let free = |place: &usize| !waits_for.contains_key(place);
    let mut ready: VecDeque<usize> = order.iter().copied().filter(free).collect();
    order.clear();
    while let Some(place) = ready.pop_front() {
        order.push(place);
        for named in content.named_by(place) {
            if let Some(count) = waits_for.get_mut(&named) {
                *count -= 1;
                if *count == 0 {
                    ready.push_back(named);
                }
            }
        }
    }
}

/// What is due of a repository's lifecycle policy: as many images as a transaction holds, or just
/// the note that nothing expired, at most once a day.
pub fn plan(
    snapshot: &Snapshot,
    now: Timestamp,
    repository: &Versioned<RepositoryRow>,
) -> Option<Step> {
    let (account, region) = (repository.key.account(), repository.key.region());
    let row = snapshot.read::<LifecycleRow>(&account, &region, &repository.id)?;
    // It was read once before it was stored. One that an older Gantry understood otherwise
    // expires nothing.
    let policy = LifecyclePolicy::parse(&row.text).ok()?;
    let unfinished = row.unfinished.as_ref();
    let expired = expired(snapshot, repository, &policy, now, None, unfinished);
    let is_recorded = row
        .evaluated_at
        .is_some_and(|at| now - at < RECORD_INTERVAL);
    if expired.is_empty() && unfinished.is_none() && is_recorded {
        return None;
    }
    let mut transaction = Transaction::new();
    transaction.expect_read(repository);
    if !expired.is_empty() {
        change_content(snapshot, repository, &mut transaction);
    }
    let mut unfinished = None;
    let mut room = ROWS_AT_ONCE;
    for (number, expired) in expired.iter().enumerate() {
        // The image's row and that of its last pull.
        let rows = expired.tags.len() + 2;
        if rows <= room {
            room -= rows;
            let name = expired.image.key.name();
            transaction.delete(expired.image.key.clone());
            transaction.remove::<PullRow>(&account, &region, name);
        } else if number == 0 {
            unfinished = Some(expired.image.digest.clone());
        } else {
            break;
        }
        for tag in expired.tags.iter().take(ROWS_AT_ONCE) {
            transaction.delete(tag.key.clone());
        }
        if unfinished.is_some() {
            break;
        }
    }
    let evaluated = LifecycleRow {
        text: row.text.clone(),
        evaluated_at: Some(now),
        unfinished,
    };
    transaction.update::<LifecycleRow>(&row, &evaluated);
    Some(Step::of(transaction))
}
