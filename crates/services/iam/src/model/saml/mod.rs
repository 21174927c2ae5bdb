//! SAML 2.0: what an identity provider's metadata say, and what an assertion that it signed claims.
//!
//! What always holds: **a claim is read from the very text that was signed**, and from no other. The signature's own
//! instructions are read from their verified canonical form, and the assertion from the canonical form whose digest
//! they name; neither the document that came nor anything beside the signed element is looked at again, so there is
//! nothing that a wrapped, doubled or moved element could be taken for. There are no document types, so no entities.
//! What it leaves to others: clocks, audiences, and which provider and role are meant (`api::saml`).

mod assertion;
mod certificate;
mod metadata;
mod signature;
mod xml;

pub use assertion::{Assertion, Confirmation, Refused, read};
pub use metadata::Metadata;
