//! Tokens: nobody makes one without its key, and who has the key reads what was put in.

use gantry_archive::Direction;
use gantry_arn::{AccountId, Region};
use gantry_ecr::model::page::Pages;
use gantry_ecr::model::token::{Grant, TokenError};
use gantry_ecs::model::page::{PageKey, PageRequest, page};
use gantry_env::Timestamp;
use gantry_logs::model::position::{self, Position};
use gantry_logs::model::spool::{SpoolDecision, SpoolToken, decide};

use crate::text;

const SECRET: &str = "a secret that no input knows";

/// The text is a token, and what tokens are made of.
pub fn pages(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if !text.is_empty() {
        assert!(ecs(text, "list", Some(text)).is_err());
    }
    let (_, next) = ecs(text, "list", None).expect("the first page");
    let next = next.expect("there is a second one");
    assert_eq!(ecs(text, "list", Some(&next)).expect("it").0, [2]);
    assert!(ecs(text, "another list", Some(&next)).is_err());

    assert!(ecr(text, Some(text)).is_none());
    let next = ecr(text, None).and_then(|page| page.1).expect("a token");
    // Longer tokens than any of ours are refused unread.
    assert!(next.len() > 4096 || ecr(text, Some(&next)).is_some_and(|page| page.0 == [2]));

    assert_eq!(gantry_logs::fuzzing::open_page(SECRET, "scope", text), None);
    let token = gantry_logs::fuzzing::seal_page(SECRET, "scope", text);
    let open = gantry_logs::fuzzing::open_page(SECRET, "scope", &token);
    assert_eq!(open.as_deref(), Some(text));

    let secret = SECRET.as_bytes();
    assert_eq!(gantry_iam::fuzzing::open_page(secret, "scope", text), None);
    let token = gantry_iam::fuzzing::seal_page(secret, "scope", text);
    let open = gantry_iam::fuzzing::open_page(secret, "scope", &token);
    assert_eq!(open.as_deref(), Some(text));

    assert_eq!(position::open(text, secret), None);
    positions(data);
}

type Page = (Vec<i32>, Option<String>);

/// Two items, the first of them named by the text, one a page.
fn ecs(text: &str, list: &str, token: Option<&str>) -> Result<Page, String> {
    let key = PageKey::of_store(SECRET);
    let request = PageRequest {
        next_token: token,
        max_results: Some(1),
        limit: 10,
    };
    let items = [(text.to_owned(), 1), (format!("{text}+"), 2)];
    page(&key, list, request, items).map_err(|error| format!("{error:?}"))
}

fn ecr(text: &str, token: Option<&str>) -> Option<Page> {
    let key = [7; 64];
    let pages = Pages {
        key: &key,
        list: "list".to_owned(),
    };
    let items = [1, 2].into_iter();
    let place = |item: &i32| match item {
        1 => text.to_owned(),
        _ => format!("{text}+"),
    };
    pages.page(items, place, 1, token).ok()
}

fn positions(data: &[u8]) {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(data) {
        *to = *from;
    }
    let number = u128::from_be_bytes(bytes);
    // Six bytes of a moment and seven of a number are in a token.
    let position = Position {
        timestamp: (number >> 80) as i64,
        sequence: (number as u64) >> 8,
    };
    for direction in [Direction::Forward, Direction::Backward] {
        let token = position::seal(direction, position, SECRET.as_bytes());
        let opened = position::open(&token, SECRET.as_bytes());
        assert_eq!(opened, Some((direction, position)), "{token}");
        assert_eq!(position::open(&token, b"another secret"), None);
    }
    let id = position::event_id("stream", position);
    assert!(id.len() == 56 && id.bytes().all(|byte| byte.is_ascii_digit()));
    let later = position::event_id("stream", position.behind());
    assert!(id < later || position.sequence == u64::MAX >> 8);
}

pub fn registry(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let now = Timestamp::from_millis(1000);
    let key = [9; 64];
    assert_eq!(Grant::verify(text, &key, now), Err(TokenError::Invalid));
    let grant = Grant {
        account: AccountId::default(),
        region: Region::default(),
        principal: text.to_owned(),
        expires_at: Timestamp::from_millis(2000),
    };
    let password = grant.password(&key).expect("a password");
    // Longer passwords than any of ours are refused unread; principals are ARNs.
    if password.len() <= 4096 {
        assert_eq!(
            Grant::verify(&password, &key, grant.expires_at),
            Err(TokenError::Expired)
        );
        assert_eq!(
            Grant::verify(&password, &[8; 64], now),
            Err(TokenError::Invalid)
        );
        assert_eq!(Grant::verify(&password, &key, now), Ok(grant));
    }
}

pub fn join(data: &[u8]) {
    use gantry_iam::fuzzing::{open_join_token, seal_join_token};
    let Some(text) = text(data) else { return };
    assert_eq!(open_join_token(text, SECRET), None);
    let id: String = text.chars().take(64).collect();
    let token = seal_join_token(&id, Timestamp::from_millis(data.len() as i64), SECRET);
    assert_eq!(open_join_token(&token, SECRET), Some(id));
    assert_eq!(open_join_token(&token, text), None);
}

/// A batch is never said to be held and new, and what is said follows from where it stands.
pub fn spool(data: &[u8]) {
    let Some(token) = text(data).and_then(SpoolToken::parse) else {
        return;
    };
    assert_eq!(SpoolToken::parse(&token.to_string()).as_ref(), Some(&token));
    for held in [
        0,
        1,
        token.start.unwrap_or(0),
        token.end.saturating_sub(1),
        token.end,
        u64::MAX,
    ] {
        match decide(Some(held), &token) {
            SpoolDecision::AlreadyHeld => assert!(token.end <= held),
            SpoolDecision::New => assert!(token.start.unwrap_or(held) >= held && token.end > held),
            SpoolDecision::Overlaps { held_to } => {
                assert!(held_to == held && token.start < Some(held) && token.end > held);
            }
        }
    }
    assert_eq!(decide(None, &token), SpoolDecision::New);
}
