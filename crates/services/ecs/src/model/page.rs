//! Pages of a list, and the tokens that lead from one to the next.
//!
//! What always holds: a token is opaque, good only for the list and the filters that it was given
//! for, on this store; one that was altered is refused. It names the last item shown, so items that
//! come and go meanwhile neither repeat nor hide others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::ecs::EcsError;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::refusal::invalid;

const TAG_BYTES: usize = 16;

/// What tokens are sealed with. The same on every replica of a store, another one for another store.
#[derive(Clone)]
pub struct PageKey([u8; 32]);

impl PageKey {
    pub fn of_store(incarnation: &str) -> Self {
        Self(Sha256::digest(format!("ecs page tokens of {incarnation}")).into())
    }

    /// `list` names the operation and everything that filters it.
    fn tag(&self, list: &str, cursor: &str) -> Vec<u8> {
        // HMAC takes keys of every length, so this cannot fail; and if it did, no token would match.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return Vec::new();
        };
        mac.update(&(list.len() as u64).to_be_bytes());
        mac.update(list.as_bytes());
        mac.update(cursor.as_bytes());
        mac.finalize().into_bytes()[..TAG_BYTES].to_vec()
    }

    fn seal(&self, list: &str, cursor: &str) -> String {
        let mut token = self.tag(list, cursor);
        token.extend(cursor.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    fn open(&self, list: &str, token: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, cursor) = bytes.split_at_checked(TAG_BYTES)?;
        let cursor = std::str::from_utf8(cursor).ok()?;
        // A token grants nothing that a list without it does not, so timing gives nothing away.
        (self.tag(list, cursor) == tag).then(|| cursor.to_owned())
    }
}

/// What the caller asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    pub next_token: Option<&'a str>,
    pub max_results: Option<i32>,
    /// The greatest page, which is also the one where the caller names none.
    pub limit: usize,
}

/// Cuts a page out of all `items`, which are in the order of their cursors.
pub fn page<T>(
    key: &PageKey,
    list: &str,
    request: PageRequest<'_>,
    all: impl IntoIterator<Item = (String, T)>,
) -> Result<(Vec<T>, Option<String>), EcsError> {
    let size = match request.max_results {
        None => request.limit,
        Some(n) => match usize::try_from(n) {
            Ok(n) if (1..=request.limit).contains(&n) => n,
            _ => {
                return Err(invalid(format!(
                    "maxResults must be between 1 and {}.",
                    request.limit
                )));
            }
        },
    };
    let after = match request.next_token.filter(|token| !token.is_empty()) {
        None => None,
        Some(token) => Some(
            key.open(list, token)
                .ok_or_else(|| invalid("Invalid nextToken."))?,
        ),
    };
    let mut taken = Vec::with_capacity(size.min(100));
    let mut last = String::new();
    let rest = all
        .into_iter()
        .filter(|(cursor, _)| after.as_ref().is_none_or(|a| cursor > a));
    for (cursor, item) in rest {
        if taken.len() == size {
            return Ok((taken, Some(key.seal(list, &last))));
        }
        taken.push(item);
        last = cursor;
    }
    Ok((taken, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<(String, usize)> {
        (0..n).map(|i| (format!("{i:04}"), i)).collect()
    }

    fn request(next_token: Option<&str>) -> PageRequest<'_> {
        PageRequest {
            next_token,
            max_results: Some(7),
            limit: 100,
        }
    }

    #[test]
    fn pages_show_everything_once() {
        let key = PageKey::of_store("one");
        let (mut token, mut seen) = (None, Vec::new());
        loop {
            let (items, next) = page(&key, "l", request(token.as_deref()), numbers(21)).unwrap();
            seen.extend(items);
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, (0..21).collect::<Vec<_>>());
    }

    #[test]
    fn a_token_of_another_list_or_store_or_an_altered_one_is_refused() {
        let key = PageKey::of_store("one");
        let (_, token) = page(&key, "l", request(None), numbers(9)).unwrap();
        let token = token.unwrap();
        assert!(page(&key, "l", request(Some(&token)), numbers(9)).is_ok());
        assert!(page(&key, "other", request(Some(&token)), numbers(9)).is_err());
        let other = PageKey::of_store("two");
        assert!(page(&other, "l", request(Some(&token)), numbers(9)).is_err());
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            if let Ok((items, _)) = page(&key, "l", request(Some(&altered)), numbers(9)) {
                // Only bits that base64 does not use may change without notice.
                assert_eq!(items, [7, 8]);
            }
        }
    }
}
