//! The distribution API and the policies of repositories.

use gantry_ecr::model::lifecycle::{Candidate, LifecyclePolicy};
use gantry_ecr::model::range::{Requested, chunk, requested};
use gantry_ecr::model::route::{Route, parameter};
use gantry_ecr::model::upload::UploadState;
use gantry_ecr::model::{Digest, Reference};
use gantry_env::Timestamp;

use crate::{first_line, text};

/// A path and, after it, a query. The path that a route stands for leads to it.
pub fn routes(data: &[u8]) {
    let (path, query) = first_line(data);
    if let Some(query) = text(query) {
        for name in ["digest", "n", "last", "from", "mount", "artifactType"] {
            parameter(Some(query), name);
        }
    }
    let Some(Ok(route)) = text(path).map(Route::parse) else {
        return;
    };
    let plain = match &route {
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Blob { repository, digest } => format!("/v2/{repository}/blobs/{digest}"),
        Route::Uploads { repository } => format!("/v2/{repository}/blobs/uploads/"),
        Route::Upload { repository, upload } => format!("/v2/{repository}/blobs/uploads/{upload}"),
        Route::Manifest {
            repository,
            reference,
        } => {
            if let Reference::Tag(tag) = reference {
                assert!(tag.as_str().len() <= 300);
            }
            format!("/v2/{repository}/manifests/{reference}")
        }
        Route::Tags { repository } => format!("/v2/{repository}/tags/list"),
        Route::Referrers { repository, digest } => format!("/v2/{repository}/referrers/{digest}"),
    };
    assert_eq!(Route::parse(&plain).as_ref(), Ok(&route), "{plain}");
    assert!(!plain.contains("..") || !plain.split('/').any(|part| part == ".."));
}

/// A size in the first eight bytes, a header after them. What is answered is inside of what there is.
pub fn ranges(data: &[u8]) {
    let Some((size, header)) = data.split_first_chunk::<8>() else {
        return;
    };
    let (size, Some(header)) = (u64::from_le_bytes(*size), text(header)) else {
        return;
    };
    if let Requested::Part(part) = requested(Some(header), size) {
        assert!(
            part.start < part.end && part.end <= size,
            "{part:?} of {size}"
        );
    }
    if let Some(range) = chunk(header) {
        assert!(range.start < range.end);
        let again = format!("{}-{}", range.start, range.end - 1);
        assert_eq!(chunk(&again), Some(range));
    }
}

/// Requests to one upload, each a verb and a number. Bytes come in order, and never more than allowed.
pub fn uploads(data: &[u8]) {
    const LIMIT: u64 = 1000;
    let now = Timestamp::from_millis(1);
    let mut state = UploadState::begin(now, LIMIT);
    for step in data.chunks_exact(3) {
        let number = u64::from(u16::from_le_bytes([step[1], step[2]])) % 1100;
        let before = state.received();
        match step[0] % 4 {
            0 => {
                let range = Some(before..before + number.max(1));
                let _ = state.open_chunk(range);
            }
            1 => {
                let opened = state.open_chunk(Some(number..number + 1));
                assert!(opened.is_err() || number == before);
            }
            2 => {
                let taken = state.receive(number as usize);
                assert_eq!(
                    state.received(),
                    before + if taken.is_ok() { number } else { 0 }
                );
            }
            _ => {
                let _ = state.close_chunk(now);
            }
        }
        assert!(state.received() <= LIMIT);
        assert!(step[0] % 4 == 2 || state.received() == before);
    }
}

/// A policy expires each image once at most, and says the same each time.
pub fn lifecycle_policies(data: &[u8]) {
    let Some(Ok(policy)) = text(data).map(LifecyclePolicy::parse) else {
        return;
    };
    let images: Vec<Candidate> = (0..12u8)
        .map(|at| Candidate {
            digest: Digest::of(&[at]),
            tags: match at % 4 {
                0 => Vec::new(),
                1 => vec!["latest".to_owned()],
                2 => vec![format!("v{at}"), "prod-1".to_owned()],
                _ => vec![format!("dev-{at}")],
            },
            pushed_at: Timestamp::from_millis(i64::from(at / 2) * 86_400_000),
            pulled_at: (at % 3 == 0).then(|| Timestamp::from_millis(86_400_000)),
        })
        .collect();
    let now = Timestamp::from_millis(30 * 86_400_000);
    let expiring = policy.expiring(&images, now);
    assert_eq!(policy.expiring(&images, now), expiring);
    let mut which: Vec<usize> = expiring.iter().map(|expiry| expiry.candidate).collect();
    which.sort_unstable();
    which.dedup();
    assert_eq!(which.len(), expiring.len());
    assert!(which.iter().all(|at| *at < images.len()));
}
