//! Ids of 32 lower-case hexadecimal digits, as ECS gives them to tasks and container instances.
//!
//! They are made from sixteen random bytes that the caller draws, so this crate stays pure.

use std::str::FromStr;

use crate::ParseError;
use crate::text::text_traits;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name([u8; 32]);

        impl $name {
            pub const EXPECTED: &'static str = $expected;

            /// The id that sixteen random bytes make.
            pub fn from_random(bytes: [u8; 16]) -> Self {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 32];
                for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                Self(text)
            }

            pub fn as_str(&self) -> &str {
                // Only ASCII digits are ever stored, so this cannot fail.
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(value: &str) -> Result<Self, ParseError> {
                match <[u8; 32]>::try_from(value.as_bytes()) {
                    Ok(text) if text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                        Ok(Self(text))
                    }
                    _ => Err(ParseError::new(value, Self::EXPECTED)),
                }
            }
        }

        text_traits!($name);
    };
}

hex_id!(
    /// The last part of a task's ARN.
    TaskId,
    "a task id of 32 lower-case hexadecimal digits"
);
hex_id!(
    /// The last part of a container instance's ARN.
    ContainerInstanceId,
    "a container instance id of 32 lower-case hexadecimal digits"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sixteen_bytes_make_an_id_that_parses_back(bytes: [u8; 16]) {
            let id = TaskId::from_random(bytes);
            prop_assert_eq!(id.as_str().len(), 32);
            prop_assert_eq!(id.as_str().parse::<TaskId>().unwrap(), id);
        }

        #[test]
        fn anything_else_is_refused(text in "[0-9a-fA-F]{0,40}") {
            let well_formed = text.len() == 32 && !text.bytes().any(|b| b.is_ascii_uppercase());
            prop_assert_eq!(text.parse::<ContainerInstanceId>().is_ok(), well_formed);
        }
    }
}
