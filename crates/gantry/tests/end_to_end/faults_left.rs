//! What an installation has on the machine, looked for in the kernel itself and by its marks alone.
//!
//! What always holds: nothing is asked of Gantry, so what it forgot is found as well.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Processes with the text on their command line or in their cgroup. Those that have ended have neither.
pub fn processes(marks: &[&str]) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let group = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        // A zombie has left its command line, and its cgroup is told only until it is reaped.
        if !line.is_empty()
            && marks
                .iter()
                .any(|mark| line.contains(mark) || group.contains(mark))
        {
            found.push(format!("process {pid}: {line}"));
        }
    }
    found
}

/// The cgroups of an installation, one a hierarchy.
pub fn cgroups(installation: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let name = format!("gantry-{installation}");
    let hierarchies = std::fs::read_dir(root).expect("cgroups").flatten();
    hierarchies
        .map(|hierarchy| hierarchy.path().join(&name))
        .chain([root.join(&name)])
        .filter(|folder| folder.exists())
        .collect()
}

/// Mounts that name one of the marks.
pub fn mounts(marks: &[&str]) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let lines = mounts
        .lines()
        .filter(|line| marks.iter().any(|mark| line.contains(mark)));
    lines.map(|line| format!("mount {line}")).collect()
}

/// Everything of an installation that is on the machine, in words; nothing after a `down`.
pub fn everything(installation: &str, folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let marks = [folder.as_str(), &format!("gantry-{installation}")];
    let mut found = processes(&marks);
    found.extend(mounts(&marks));
    found.extend(
        cgroups(installation)
            .iter()
            .map(|path| format!("cgroup {}", path.display())),
    );
    let namespaces = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    let of_ours = namespaces
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(marks[1]));
    found.extend(of_ours.map(|name| format!("namespace {name}")));
    let links = std::fs::read_dir("/sys/class/net")
        .expect("links")
        .flatten();
    let of_ours = links
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("gv{installation}")));
    found.extend(of_ours.map(|name| format!("interface {name}")));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = String::from_utf8_lossy(&tables.expect("nft").stdout).into_owned();
    let of_ours = tables.lines().filter(|line| line.contains(marks[1]));
    found.extend(of_ours.map(|line| format!("nftables {line}")));
    found
}
