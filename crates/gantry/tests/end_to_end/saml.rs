//! People who sign in at a SAML identity provider become a role without any key. The provider is openssl and xmlsec1.

use crate::boto3;
use crate::installation::Installation;

#[test]
fn a_signed_assertion_becomes_a_role_and_a_forged_one_nobody() {
    let gantry = Installation::up();
    let folder = gantry.scratch("idp");
    std::fs::create_dir_all(&folder).expect("a folder");
    boto3::python(
        &gantry,
        &format!("FOLDER = {folder:?}"),
        include_str!("saml.py"),
    );
}
