//! Pages of a list: where the next one begins, in a token that only this registry can make.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::token::TokenKey;

const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pagination token is not one of this list's")]
pub struct InvalidPageToken;

/// One list: the operation, whose it is and its filters. A token of another one is refused.
pub struct Pages<'a> {
    pub key: &'a TokenKey,
    pub list: String,
}

impl Pages<'_> {
    /// The first `limit` of `items` after the token's place. They must come in the order of
    /// what `place_of` says of them.
    pub fn page<T>(
        &self,
        items: impl Iterator<Item = T>,
        place_of: impl Fn(&T) -> String,
        limit: usize,
        token: Option<&str>,
    ) -> Result<(Vec<T>, Option<String>), InvalidPageToken> {
        let after = token.map(|token| self.read(token)).transpose()?;
        let is_after = |item: &T| after.as_ref().is_none_or(|after| place_of(item) > *after);
        let mut rest = items.filter(is_after).peekable();
        let page: Vec<T> = rest.by_ref().take(limit).collect();
        let next = match (rest.peek(), page.last()) {
            (Some(_), Some(last)) => Some(self.write(&place_of(last))),
            _ => None,
        };
        Ok((page, next))
    }

    fn write(&self, place: &str) -> String {
        let place = URL_SAFE_NO_PAD.encode(place);
        let signature = self.mac(&place).finalize().into_bytes();
        format!("{place}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn read(&self, token: &str) -> Result<String, InvalidPageToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidPageToken);
        }
        let (place, signature) = token.split_once('.').ok_or(InvalidPageToken)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| InvalidPageToken)?;
        self.mac(place)
            .verify_slice(&signature)
            .map_err(|_| InvalidPageToken)?;
        let place = URL_SAFE_NO_PAD
            .decode(place)
            .map_err(|_| InvalidPageToken)?;
        String::from_utf8(place).map_err(|_| InvalidPageToken)
    }

    fn mac(&self, place: &str) -> Hmac<Sha256> {
        <Hmac<Sha256> as Mac>::new(self.key.into())
            .chain_update(b"gantry registry page 1\0")
            .chain_update(self.list.as_bytes())
            .chain_update(b"\0")
            .chain_update(place.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(key: &TokenKey, list: &str) -> (Vec<String>, Option<String>) {
        let pages = Pages {
            key,
            list: list.to_owned(),
        };
        let items = ["a", "b", "c"].map(str::to_owned);
        pages
            .page(items.into_iter(), String::clone, 2, None)
            .unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_own_list_only() {
        let key = [1; 64];
        let (first, token) = pages(&key, "x");
        assert_eq!(first, ["a", "b"]);
        let token = token.unwrap();
        let read = |key, list: &str, token: &str| {
            let items = ["a", "b", "c"].map(str::to_owned).into_iter();
            Pages {
                key,
                list: list.to_owned(),
            }
            .page(items, String::clone, 2, Some(token))
        };
        assert_eq!(read(&key, "x", &token), Ok((vec!["c".to_owned()], None)));
        assert_eq!(read(&key, "y", &token), Err(InvalidPageToken));
        assert_eq!(read(&[2; 64], "x", &token), Err(InvalidPageToken));
        assert_eq!(read(&key, "x", "Yg.AA"), Err(InvalidPageToken));
    }

    proptest! {
        #[test]
        fn pages_together_are_the_list(count in 0usize..50, limit in 1usize..10) {
            let all: Vec<String> = (0..count).map(|n| format!("{n:03}")).collect();
            let pages = Pages { key: &[1; 64], list: String::new() };
            let (mut seen, mut token) = (Vec::new(), None::<String>);
            loop {
                let page = pages.page(all.clone().into_iter(), String::clone, limit, token.as_deref());
                let (page, next) = page.unwrap();
                seen.extend(page);
                token = next;
                if token.is_none() { break; }
            }
            prop_assert_eq!(seen, all);
        }
    }
}
