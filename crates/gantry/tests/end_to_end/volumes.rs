//! Volumes: of the host, of a task, shared, and what images bring along.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn a_container_sees_the_folders_of_its_host() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "host-volumes", &[]);
    let folder = gantry.scratch("shared-with-tasks");
    std::fs::create_dir_all(folder.join("given")).expect("a folder");
    std::fs::write(folder.join("given/file"), "from the host\n").expect("a file");
    std::os::unix::fs::symlink("/etc/shadow", folder.join("given/link")).expect("a link");
    let program = r#"
volumes = [dict(name="given", host=dict(sourcePath=FOLDER + "/given")), dict(name="made", host=dict(sourcePath=FOLDER + "/made/by/the/task")),
    dict(name="one-file", host=dict(sourcePath=FOLDER + "/given/file"))]
mounts = [dict(sourceVolume="given", containerPath="/given"), dict(sourceVolume="given", containerPath="/safe/deep", readOnly=True),
    dict(sourceVolume="made", containerPath="/made"), dict(sourceVolume="one-file", containerPath="/one")]
task, lines = run([sh("""
cat /given/file /one
cat /given/link 2>/dev/null || echo the link leads nowhere
echo from the task > /given/back
touch /safe/deep/x 2>/dev/null || echo read only
echo made > /made/it
""", mountPoints=mounts)], network="none", volumes=volumes)
check(lines, ["from the host", "from the host", "the link leads nowhere", "read only", "end"])
check(open(FOLDER + "/given/back").read(), "from the task\n")
check(open(FOLDER + "/made/by/the/task/it").read(), "made\n")
# Where the image has a link, the mount lands inside the container, not where the link leads on the host.
task, lines = run([sh("cat /etc/shadow/file", mountPoints=[dict(sourceVolume="given", containerPath="/srv/content/link")])], network="none", volumes=volumes[:1])
import os
assert "end" in lines or "CannotStart" in task["containers"][0]["reason"], (task, lines)
assert os.path.isfile("/etc/shadow"), "a mount escaped from its container"
"#;
    with_image(&gantry, &image, &format!("FOLDER = {folder:?}\n{program}"));
}

#[test]
fn a_tasks_volumes_go_with_it_and_shared_ones_stay() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "task-volumes", &[]);
    let program = r#"
import os, glob
folders = lambda: glob.glob(DATA + "/**/volumes/task/*", recursive=True)
docker = lambda name, **more: dict(name=name, dockerVolumeConfiguration=dict(more))
mount = lambda volume, path, **more: dict(sourceVolume=volume, containerPath=path, **more)
side = dict(essential=False, stopTimeout=1)
# Two containers share what the task owns; a third takes everything from the first, for reading only.
task, lines = run([
    dict(side, name="first", command=["sh", "-c", "echo a > /empty/file; echo b > /docker/file; echo c > /memory/file; echo f > /bound/file; exec sleep 1000"],
         mountPoints=[mount("empty", "/empty"), mount("docker", "/docker"), mount("memory", "/memory"), mount("bound", "/bound")]),
    dict(side, name="third", volumesFrom=[dict(sourceContainer="first", readOnly=True)], command=["sh", "-c",
        "while ! test -f /bound/file; do sleep 0.02; done; cat /empty/file /docker/file /memory/file; touch /docker/new 2>/dev/null || echo read only; echo third > /dev/null"]),
    sh("grep ' /memory ' /proc/mounts; cat /mine/file; test -f /empty/file || echo not mine",
       dependsOn=[dict(containerName="third", condition="COMPLETE")], mountPoints=[mount("docker", "/mine"), mount("memory", "/memory")]),
], network="none", volumes=[dict(name="empty", host=dict()), docker("docker", scope="task", labels=dict(a="b")),
    docker("memory", driver="local", driverOpts=dict(type="tmpfs", device="tmpfs", o="size=1m,mode=0700")),
    docker("bound", driverOpts=dict(type="none", o="bind", device=SCRATCH))])
for wanted in ["a", "b", "c", "read only", "not mine", "end"]:
    assert wanted in lines, (wanted, lines)
assert any("tmpfs" in l and "size=1024k" in l for l in lines), lines
check(open(SCRATCH + "/file").read(), "f\n")
deadline = time.time() + 20 * PATIENCE
while folders() and time.time() < deadline:
    time.sleep(0.05)
check(folders(), [])
check([l for l in open("/proc/mounts") if DATA in l], [])
# A shared volume is made once, by who may, and found again by every task.
shared = lambda **more: dict(network="none", volumes=[docker("kept", scope="shared", **more)])
use = lambda text: [sh(text, mountPoints=[mount("kept", "/kept")])]
task, _ = run(use("true"), **shared(autoprovision=False))
assert "kept" in task["containers"][0]["reason"] and "autoprovision" in task["containers"][0]["reason"], task
task, lines = run(use("echo remembered > /kept/file"), **shared(autoprovision=True, labels=dict(a="b")))
check(lines, ["end"])
task, lines = run(use("cat /kept/file"), **shared(autoprovision=False))
check(lines, ["remembered", "end"])
task, _ = run(use("true"), **shared(autoprovision=True, labels=dict(a="other")))
assert "labels" in task["containers"][0]["reason"], task
"#;
    let scratch = gantry.scratch("bound");
    std::fs::create_dir_all(&scratch).expect("a folder");
    with_image(
        &gantry,
        &image,
        &format!(
            "DATA = {:?}\nSCRATCH = {scratch:?}\n{program}",
            gantry.data_dir()
        ),
    );
}

#[test]
fn an_image_fills_a_fresh_volume() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "filled", &["--config.volume", "/srv/content"]);
    with_image(
        &gantry,
        &image,
        r#"
look = "/bin/busybox stat -c '%n %u %g %a' /srv/content /srv/content/file; /bin/busybox readlink /srv/content/link; cat /srv/content/file"
there = ["/srv/content 1234 2345 750", "/srv/content/file 1234 2345 640", "/etc/shadow", "from the image", "end"]
# What the image declares is a volume of the container's own: it can be written although the root cannot.
task, lines = run([sh(look + "; echo more > /srv/content/more && cat /srv/content/more", readonlyRootFilesystem=True)], network="none")
check(lines, there[:-1] + ["more", "end"])
# A volume of the task over it is filled once, and then is what the containers made of it.
volume = dict(network="none", volumes=[dict(name="v")])
mount = dict(mountPoints=[dict(sourceVolume="v", containerPath="/srv/content")])
task, lines = run([
    dict(name="first", essential=False, command=["sh", "-c", "/bin/busybox rm /srv/content/link"], **mount),
    sh("ls /srv/content; cat /srv/content/file", dependsOn=[dict(containerName="first", condition="COMPLETE")], **mount),
], **volume)
check(lines, ["file", "from the image", "end"])
# Another takes the image's volume over from its owner.
task, lines = run([
    dict(name="owner", essential=False, stopTimeout=1, command=["sh", "-c", "echo owned > /srv/content/by; exec sleep 1000"]),
    sh("while ! test -f /srv/content/by; do sleep 0.02; done; cat /srv/content/by", volumesFrom=[dict(sourceContainer="owner")]),
], network="none")
check(lines, ["owned", "end"])
# A folder of the host is the host's: nothing is copied into it.
task, lines = run([sh("ls /srv/content | wc -l", mountPoints=mount["mountPoints"])], network="none", volumes=[dict(name="v", host=dict(sourcePath=FOLDER))])
check(lines[0].strip(), "0")
"#
        .replace(
            "FOLDER",
            &format!("{:?}", gantry.scratch("empty-on-the-host")),
        )
        .as_str(),
    );
}

#[test]
fn a_program_that_only_a_volume_has_runs() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "volume-programs", &[]);
    let folder = gantry.scratch("tools");
    std::fs::create_dir_all(&folder).expect("a folder");
    let program = r##"
import os
with open(FOLDER + "/tool", "w") as file: file.write("#!/bin/sh\necho tool $1; echo end\n")
os.chmod(FOLDER + "/tool", 0o755)
given = dict(network="none", volumes=[dict(name="tools", host=dict(sourcePath=FOLDER))])
at = lambda path: [dict(sourceVolume="tools", containerPath=path, readOnly=True)]
task, lines = run([dict(name="c", command=["/tools/tool", "by its path # echo end"], mountPoints=at("/tools"))], **given)
check(lines, ["tool by its path # echo end", "end"])
task, lines = run([dict(name="c", command=["tool", "by PATH # echo end"], environment=[dict(name="PATH", value="/bin:/in/path")], mountPoints=at("/in/path"))], **given)
assert lines, task
check(lines, ["tool by PATH # echo end", "end"])
# Another container puts it into a volume in memory, or into one of Docker's.
for more in [dict(driverOpts=dict(type="tmpfs", device="tmpfs", o="size=4m")), dict(scope="task")]:
    task, lines = run([
        dict(name="maker", essential=False, mountPoints=[dict(sourceVolume="made", containerPath="/out")],
             command=["sh", "-c", "printf '#!/bin/sh\\necho made; echo end\\n' > /out/tool; /bin/busybox chmod 755 /out/tool"]),
        dict(name="c", command=["/in/tool", "# echo end"], dependsOn=[dict(containerName="maker", condition="SUCCESS")],
             mountPoints=[dict(sourceVolume="made", containerPath="/in")]),
    ], network="none", volumes=[dict(name="made", dockerVolumeConfiguration=more)])
    check(lines, ["made", "end"])
# Docker's words where it is really missing.
task, _ = run([dict(name="c", command=["/tools/nothing"], mountPoints=at("/tools"))], **given)
check(task["stopCode"], "TaskFailedToStart")
assert 'exec: "/tools/nothing": stat /tools/nothing: no such file or directory' in task["containers"][0]["reason"], task
"##;
    with_image(&gantry, &image, &format!("FOLDER = {folder:?}\n{program}"));
}
