//! The labs, as a reader runs them: with the shell, against a Gantry that was started for it.

use std::path::Path;
use std::process::Command;

use crate::bridge;
use crate::image::run;
use crate::installation::Installation;

#[test]
fn the_flask_lab_goes_from_an_image_to_a_revision_that_rolls_back() {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../labs/flask");
    // Made once a machine, with the network that the machine has.
    run(&mut Command::new(lab.join("base")));
    bridge::machine();
    let gantry = Installation::up();
    let said = run(gantry
        .command(lab.join("run"))
        .env("REGISTRY_AUTH_FILE", gantry.scratch("auth.json")));
    for line in [
        "it died with exit code 1",
        "STOPPED	EssentialContainerExited",
        "revision 2 from",
        "rolling back to deployment",
        "the lab is done",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    // It cleans up behind itself.
    assert_eq!(
        gantry.aws(&["ecs", "list-services"])["serviceArns"],
        serde_json::json!([])
    );
    assert_eq!(
        gantry.aws(&["ecr", "describe-repositories"])["repositories"],
        serde_json::json!([])
    );
}
