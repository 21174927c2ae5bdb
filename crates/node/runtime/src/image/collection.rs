//! Which images go, and what goes with them. Pure.
//!
//! What always holds: nothing that somebody uses is ever planned away, however old it is and however full the
//! disk; a layer or a document goes only when no image that stays has it. Where two plans would do, the image
//! that nobody has used for longest goes first.
//! What it leaves to others: who uses what (`Runtime::collect_images`), and the disk (`removal`).

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_env::Timestamp;

use super::digest::Digest;

/// When images go. The defaults are the Amazon ECS agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionPolicy {
    /// How often it is looked for images to remove.
    pub interval: Duration,
    /// An image that was used more recently stays.
    pub age_min: Duration,
    /// More than these do not go at once, so that a disk is not kept busy.
    pub images_per_cycle: usize,
    /// Where less of the disk is free, neither age nor number count.
    pub free_percent_min: u8,
}

impl Default for CollectionPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30 * 60),
            age_min: Duration::from_secs(60 * 60),
            images_per_cycle: 5,
            free_percent_min: 10,
        }
    }
}

/// An image that is whole on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredImage {
    pub digest: Digest,
    /// Its documents: what its digest names, its manifest and its configuration.
    pub blobs: BTreeSet<Digest>,
    pub layers: BTreeSet<Digest>,
    pub used_at: Timestamp,
}

impl StoredImage {
    /// Whoever uses it may name it by any of its documents.
    pub fn is_among(&self, in_use: &BTreeSet<Digest>) -> bool {
        !self.blobs.is_disjoint(in_use)
    }
}

/// The images to remove, longest unused first.
///
/// Under pressure it is the one that was unused for longest: whoever carries it out looks again at what is free, so
/// that no more goes than must.
pub(crate) fn images_to_remove(
    images: &[StoredImage],
    in_use: &BTreeSet<Digest>,
    is_low_on_space: bool,
    policy: &CollectionPolicy,
    now: Timestamp,
) -> Vec<Digest> {
    let mut unused: Vec<&StoredImage> = images
        .iter()
        .filter(|image| !image.is_among(in_use))
        .filter(|image| is_low_on_space || now.since(image.used_at) >= policy.age_min)
        .collect();
    unused.sort_by_key(|image| (image.used_at, &image.digest));
    let at_most = if is_low_on_space {
        1
    } else {
        policy.images_per_cycle
    };
    unused
        .into_iter()
        .take(at_most)
        .map(|image| image.digest.clone())
        .collect()
}

/// What is on disk and belongs to no image that stays and to nobody who uses it: what removed images leave, and
/// what a crash left of one.
pub(crate) fn left_over(
    on_disk: BTreeSet<Digest>,
    staying: &BTreeSet<Digest>,
    in_use: &BTreeSet<Digest>,
) -> BTreeSet<Digest> {
    on_disk
        .into_iter()
        .filter(|digest| !staying.contains(digest) && !in_use.contains(digest))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(100 * 3_600_000);

    fn digest(of: u8) -> Digest {
        Digest::of(&[of])
    }

    fn image(of: u8, layers: &[u8], hours_ago: u64) -> StoredImage {
        StoredImage {
            digest: digest(of),
            blobs: BTreeSet::from([digest(of), digest(of ^ 0x80)]),
            layers: layers.iter().map(|layer| digest(*layer)).collect(),
            used_at: NOW - Duration::from_secs(3600 * hours_ago),
        }
    }

    #[test]
    fn the_longest_unused_go_first_and_only_a_few_at_once() {
        let images: Vec<StoredImage> = (0..8).map(|at| image(at, &[], u64::from(at))).collect();
        let policy = CollectionPolicy::default();
        let gone = images_to_remove(&images, &BTreeSet::new(), false, &policy, NOW);
        assert_eq!(gone, [7, 6, 5, 4, 3].map(digest));
        let in_use = BTreeSet::from([digest(7), digest(6 ^ 0x80)]);
        let gone = images_to_remove(&images, &in_use, false, &policy, NOW);
        assert_eq!(gone, [5, 4, 3, 2, 1].map(digest));
    }

    #[test]
    fn an_image_used_within_the_age_stays_unless_the_disk_is_full() {
        let images = [image(1, &[], 0), image(2, &[], 0)];
        let policy = CollectionPolicy::default();
        let none = BTreeSet::new();
        assert_eq!(images_to_remove(&images, &none, false, &policy, NOW), []);
        let gone = images_to_remove(&images, &none, true, &policy, NOW);
        assert_eq!(gone.len(), 1);
        let both = BTreeSet::from([digest(1), digest(2)]);
        assert_eq!(images_to_remove(&images, &both, true, &policy, NOW), []);
    }

    proptest! {
        #[test]
        fn nothing_that_is_used_or_shared_with_what_stays_goes(
            stored in vec((btree_set(0u8..12, 0..5), 0u64..5), 0..12),
            used in btree_set(0u8..12, 0..4),
            used_layers in btree_set(0u8..12, 0..3),
            is_low_on_space: bool,
            images_per_cycle in 0usize..4,
        ) {
            // Images are named from 20 up, so that none is called like a layer.
            let images: Vec<StoredImage> = stored.iter().enumerate()
                .map(|(at, (layers, hours))| {
                    image(20 + at as u8, &layers.iter().copied().collect::<Vec<_>>(), *hours)
                })
                .collect();
            let in_use: BTreeSet<Digest> = used.iter().map(|at| digest(20 + at))
                .chain(used_layers.iter().map(|layer| digest(*layer)))
                .collect();
            let policy = CollectionPolicy { images_per_cycle, ..CollectionPolicy::default() };
            let gone = images_to_remove(&images, &in_use, is_low_on_space, &policy, NOW);
            prop_assert!(gone.len() <= images_per_cycle.max(usize::from(is_low_on_space)));
            let staying: Vec<&StoredImage> =
                images.iter().filter(|image| !gone.contains(&image.digest)).collect();
            let layers_of_staying: BTreeSet<Digest> =
                staying.iter().flat_map(|image| image.layers.clone()).collect();
            let swept = left_over((0u8..12).map(digest).collect(), &layers_of_staying, &in_use);
            for image in &images {
                if image.is_among(&in_use) {
                    prop_assert!(!gone.contains(&image.digest));
                    prop_assert!(image.layers.is_disjoint(&swept));
                }
            }
            for layer in used_layers {
                prop_assert!(!swept.contains(&digest(layer)));
            }
            for image in staying {
                prop_assert!(image.layers.is_disjoint(&swept));
            }
            if !is_low_on_space {
                for digest in &gone {
                    let image = images.iter().find(|image| image.digest == *digest).unwrap();
                    prop_assert!(NOW.since(image.used_at) >= policy.age_min);
                }
            }
        }
    }
}
