//! Each log driver against a receiver that reads its real format.

use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn every_log_driver_delivers_what_a_container_writes() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "logs", &[]);
    let data = gantry.data_dir();
    let program = include_str!("log_drivers.py");
    let printed = gantry.python(&format!("IMAGE, DATA = {image:?}, {data:?}\n{program}"));
    assert!(printed.ends_with("all true\n"), "{printed}");
}
