//! Which account and which region: the first two parts of every key in the store.

use std::str::FromStr;

use crate::ParseError;
use crate::text::{checked_text, made_of, text_traits};

/// Twelve digits. The account of a machine that never said otherwise is `000000000000`.
#[derive(Clone, Copy)]
pub struct AccountId([u8; 12]);

impl AccountId {
    pub const EXPECTED: &'static str = "an account id of 12 digits";

    pub fn as_str(&self) -> &str {
        // Only ASCII digits are ever stored, so this cannot fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for AccountId {
    fn default() -> Self {
        Self([b'0'; 12])
    }
}

impl FromStr for AccountId {
    type Err = ParseError;

    fn from_str(value: &str) -> Result<Self, ParseError> {
        match <[u8; 12]>::try_from(value.as_bytes()) {
            Ok(digits) if digits.iter().all(u8::is_ascii_digit) => Ok(Self(digits)),
            _ => Err(ParseError::new(value, Self::EXPECTED)),
        }
    }
}

text_traits!(AccountId);

checked_text!(
    /// A region such as `us-east-1`, which is also the default. Every region works, so any
    /// well-formed name is one.
    Region,
    "a region name of lower-case letters, digits and hyphens",
    |value| {
        made_of(value, 2, 63, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        }) && !value.starts_with('-')
            && !value.ends_with('-')
    }
);

impl Region {
    /// The region under which resources without one are kept, IAM's above all. The name is AWS's
    /// own for it.
    pub fn global() -> Self {
        Self("aws-global".into())
    }

    /// The partition that this region belongs to.
    pub fn partition(&self) -> Partition {
        match self.as_str() {
            name if name.starts_with("cn-") => Partition::AwsCn,
            name if name.starts_with("us-gov-") => Partition::AwsUsGov,
            _ => Partition::Aws,
        }
    }
}

impl Default for Region {
    fn default() -> Self {
        Self("us-east-1".into())
    }
}

/// The first word of an ARN after `arn:`, decided by the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    Aws,
    AwsCn,
    AwsUsGov,
}

impl Partition {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::AwsCn => "aws-cn",
            Self::AwsUsGov => "aws-us-gov",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_twelve_digits() {
        assert_eq!(AccountId::default().as_str(), "000000000000");
        assert_eq!("123456789012".parse::<AccountId>().unwrap(), "123456789012");
        for bad in ["", "12345678901", "1234567890123", "12345678901a", "١٢٣٤٥٦"] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_region_is_well_formed_and_knows_its_partition() {
        assert_eq!(Region::default().as_str(), "us-east-1");
        assert_eq!(
            Region::new("cn-north-1").unwrap().partition().as_str(),
            "aws-cn"
        );
        assert_eq!(
            Region::new("us-gov-west-1").unwrap().partition(),
            Partition::AwsUsGov
        );
        for bad in ["", "a", "US-EAST-1", "us east 1", "-us", "us-", "us/east"] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serde_uses_the_text_and_refuses_what_parsing_refuses() {
        let account: AccountId = serde_json::from_str("\"123456789012\"").unwrap();
        assert_eq!(serde_json::to_string(&account).unwrap(), "\"123456789012\"");
        assert!(serde_json::from_str::<AccountId>("\"x\"").is_err());
        assert!(serde_json::from_str::<Region>("\"US\"").is_err());
    }
}
