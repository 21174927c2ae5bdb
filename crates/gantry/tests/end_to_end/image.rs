//! Images for the tests, made from Debian's static busybox: nothing is downloaded.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installation::Installation;

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An OCI image layout with busybox, its usual names, and further configuration for `umoci config`.
pub fn busybox_layout(folder: &Path, configuration: &[&str]) -> PathBuf {
    let layout = folder.join("layout");
    let bundle = folder.join("bundle");
    let image = format!("{}:latest", layout.display());
    run(Command::new("umoci")
        .args(["init", "--layout"])
        .arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &image]));
    run(Command::new("umoci")
        .args(["unpack", "--image", &image])
        .arg(&bundle));
    let root = bundle.join("rootfs");
    for name in ["bin", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(name)).expect("a folder of the image");
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in [
        "sh", "true", "false", "echo", "cat", "sleep", "id", "env", "pwd", "ls", "touch", "seq",
        "head", "kill", "ip", "mount", "dd", "tail", "test", "date", "wc", "mkdir", "uname",
        "nproc", "grep", "hostname",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("an applet");
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\napp:x:1234:2345:app:/tmp:/bin/sh\n",
    )
    .expect("passwd");
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\napp:x:2345:\nextra:x:3456:app\n",
    )
    .expect("group");
    // A folder with an owner, a mode and a link of its own: what a volume over it is filled with.
    let content = root.join("srv/content");
    std::fs::create_dir_all(&content).expect("a folder of the image");
    std::fs::write(content.join("file"), "from the image\n").expect("a file");
    std::os::unix::fs::symlink("/etc/shadow", content.join("link")).expect("a link");
    for (path, mode) in [(&content, 0o750), (&content.join("file"), 0o640)] {
        std::os::unix::fs::chown(path, Some(1234), Some(2345)).expect("an owner");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("a mode");
    }
    run(Command::new("umoci")
        .args(["repack", "--image", &image])
        .arg(&bundle));
    run(Command::new("umoci")
        .args([
            "config",
            "--image",
            &image,
            "--config.env",
            "PATH=/bin",
            "--config.cmd",
            "/bin/sh",
        ])
        .args(configuration));
    layout
}

/// Makes the repository and pushes a busybox image to it with skopeo; returns the reference for a task definition.
pub fn push_busybox(gantry: &Installation, repository: &str, configuration: &[&str]) -> String {
    let folder = gantry.scratch(&format!("image-{}", repository.replace('/', "-")));
    std::fs::create_dir_all(&folder).expect("a folder");
    let layout = busybox_layout(&folder, configuration);
    gantry.aws(&["ecr", "create-repository", "--repository-name", repository]);
    let reference = format!("{}/{repository}:1", gantry.registry());
    run(Command::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--dest-creds",
        ])
        .arg(format!("AWS:{}", password(gantry)))
        .arg(format!("oci:{}:latest", layout.display()))
        .arg(format!("docker://{reference}")));
    reference
}

/// What `aws ecr get-login-password` prints.
pub fn password(gantry: &Installation) -> String {
    run(gantry.command("aws").args(["ecr", "get-login-password"]))
        .trim()
        .to_owned()
}
