//! AssumeRoleWithSAML on virtual time. The identity provider is this test: what it signs is written in canonical form
//! by hand, so nothing of what verifies it took part in making it. What xmlsec1 signed is in `documents`.

mod attacks;
mod claims;
#[path = "../desk/mod.rs"]
mod desk;
mod documents;
mod idp;
