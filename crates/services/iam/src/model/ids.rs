//! Identifiers and secrets of AWS's form, made from randomness that is handed in.
//!
//! An id never says what it names beyond its prefix (`AIDA` a user, `AGPA` a
//! group, `AROA` a role, `ANPA` a managed policy, `AIPA` an instance profile, `AKIA` a long-term access key,
//! `ASIA` a temporary one), and is never used again: a role that is deleted and
//! made anew has another id, which is how an old session is told from a new role.

use sha2::{Digest, Sha256};

/// AWS writes ids in base 32 without the digits that look like letters.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_ALPHABET: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What an identifier names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    User,
    Group,
    Role,
    ManagedPolicy,
    InstanceProfile,
    LongTermAccessKey,
    TemporaryAccessKey,
}

impl IdKind {
    pub fn prefix(self) -> &'static str {
        match self {
            IdKind::User => "AIDA",
            IdKind::Group => "AGPA",
            IdKind::Role => "AROA",
            IdKind::ManagedPolicy => "ANPA",
            IdKind::InstanceProfile => "AIPA",
            IdKind::LongTermAccessKey => "AKIA",
            IdKind::TemporaryAccessKey => "ASIA",
        }
    }

    /// Access key ids have 20 characters, every other id 21.
    fn random_len(self) -> usize {
        match self {
            IdKind::LongTermAccessKey | IdKind::TemporaryAccessKey => 16,
            _ => 17,
        }
    }
}

/// An id of the given kind from random bytes.
pub fn unique_id(kind: IdKind, random: [u8; 32]) -> String {
    let mut id = String::with_capacity(21);
    id.push_str(kind.prefix());
    for byte in &random[..kind.random_len()] {
        id.push(ID_ALPHABET[usize::from(byte & 31)] as char);
    }
    id
}

/// The id of something that is the same in every installation, such as an
/// AWS-managed policy: derived from its name, so it needs no row to be kept.
pub fn fixed_id(kind: IdKind, name: &str) -> String {
    unique_id(kind, Sha256::digest(name.as_bytes()).into())
}

/// A secret access key: 40 characters that carry 240 bits.
pub fn secret_access_key(random: [u8; 40]) -> String {
    random
        .iter()
        .map(|byte| SECRET_ALPHABET[usize::from(byte & 63)] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_length_and_alphabet_of_aws() {
        for (kind, len) in [
            (IdKind::User, 21),
            (IdKind::Group, 21),
            (IdKind::Role, 21),
            (IdKind::ManagedPolicy, 21),
            (IdKind::LongTermAccessKey, 20),
            (IdKind::TemporaryAccessKey, 20),
        ] {
            let mut random = [0u8; 32];
            for (i, byte) in random.iter_mut().enumerate() {
                *byte = (i * 37 + 11) as u8;
            }
            let id = unique_id(kind, random);
            assert_eq!(id.len(), len, "{id}");
            assert!(id.starts_with(kind.prefix()));
            assert!(
                id.bytes().all(|b| ID_ALPHABET.contains(&b)),
                "{id} leaves the alphabet"
            );
        }
    }

    #[test]
    fn a_fixed_id_depends_only_on_the_name() {
        assert_eq!(
            fixed_id(IdKind::ManagedPolicy, "AdministratorAccess"),
            fixed_id(IdKind::ManagedPolicy, "AdministratorAccess")
        );
        assert_ne!(
            fixed_id(IdKind::ManagedPolicy, "AdministratorAccess"),
            fixed_id(IdKind::ManagedPolicy, "PowerUserAccess")
        );
    }

    #[test]
    fn secrets_are_forty_characters() {
        assert_eq!(secret_access_key([255; 40]), "/".repeat(40));
    }
}
