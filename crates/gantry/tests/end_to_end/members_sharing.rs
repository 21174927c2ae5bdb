//! What the containers of a task share with each other and with the host.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn containers_share_processes_and_memory_as_they_are_told() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "sharing", &[]);
    with_image(
        &gantry,
        &image,
        r#"
# One writes to shared memory and waits under a name of its own; the other looks for both.
writer = dict(name="writer", essential=False, stopTimeout=1, command=["sh", "-c", "echo here > /dev/shm/note; exec sleep 123456"])
def look(**modes):
    reader = sh("""
for i in $(seq 40); do test -f /dev/shm/note && break; sleep 0.05; done
cat /dev/shm/note 2>/dev/null || echo nothing shared
grep -l 1234[5]6 /proc/[0-9]*/cmdline 2>/dev/null | wc -l
/bin/busybox readlink /proc/self/ns/ipc; /bin/busybox readlink /proc/self/ns/pid
test -d /dev/shm && echo has shm || echo no shm
""", dependsOn=[dict(containerName="writer", condition="START")])
    task, lines = run([dict(writer), reader], network="none", **modes)
    assert "end" in lines, (modes, lines, task)
    return lines
import os
own = lambda kind: os.readlink("/proc/self/ns/" + kind)
lines = look()
check(lines[0], "nothing shared")
check(lines[1].strip(), "0")
assert lines[2] != own("ipc") and lines[3] != own("pid"), lines
lines = look(pidMode="task", ipcMode="task")
check(lines[0], "here")
assert int(lines[1]) >= 1, lines
assert lines[2] != own("ipc") and lines[3] != own("pid"), lines
lines = look(pidMode="host", ipcMode="host")
assert int(lines[1]) >= 1, lines
check(lines[2:4], [own("ipc"), own("pid")])
import subprocess
subprocess.run(["rm", "-f", "/dev/shm/note"], check=True)
task, lines = run([sh("test -w /dev/shm && echo shm || echo none")], network="none", ipcMode="none")
check(lines[0], "none")
"#,
    );
}
