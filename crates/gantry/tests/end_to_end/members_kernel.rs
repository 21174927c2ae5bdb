//! What a container definition asks of the kernel, as the container sees it.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn a_container_gets_what_it_asks_of_the_kernel() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "kernel", &[]);
    with_image(
        &gantry,
        &image,
        r#"
def after(lines, word):
    return [l[len(word):].strip() for l in lines if l.startswith(word)]
def bits(text, *numbers):
    return [int(text, 16) >> n & 1 for n in numbers]
import os
device = [d for d in ("/dev/fuse", "/dev/loop-control", "/dev/net/tun") if os.path.exists(d)][0]
CHOWN, NET_ADMIN, NET_RAW, SYS_TIME = 0, 12, 13, 25
task, lines = run([sh("""
ulimit -Sn; ulimit -Hn; ulimit -Hc
grep -E 'CapEff|NoNewPrivs' /proc/self/status
grep -E ' (/t|/dev/shm) ' /proc/mounts
echo somaxconn $(cat /proc/sys/net/core/somaxconn) msgmax $(cat /proc/sys/kernel/msgmax)
ls -l /dev/messages
echo x 2>/dev/null > /dev/messages || echo cannot write
dd if=/dev/messages bs=1 count=0 2>/dev/null && echo can read
echo shares $(cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null)
echo soft $(cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low 2>/dev/null)
echo first process $(cat /proc/1/comm) mine $$
sh -c '(sleep 0.1 &) ; exit 0'; sleep 0.4
echo zombies $(grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)
""", memory=96, memoryReservation=48, cpu=512,
    ulimits=[dict(name="nofile", softLimit=512, hardLimit=1000), dict(name="core", softLimit=0, hardLimit=0)],
    systemControls=[dict(namespace="net.core.somaxconn", value="77"), dict(namespace="kernel.msgmax", value="9000")],
    dockerSecurityOptions=["no-new-privileges"],
    linuxParameters=dict(
        capabilities=dict(add=["SYS_TIME", "NET_ADMIN"], drop=["CHOWN", "NET_RAW"]),
        devices=[dict(hostPath=device, containerPath="/dev/messages", permissions=["read"])],
        initProcessEnabled=True, sharedMemorySize=32,
        tmpfs=[dict(containerPath="/t", size=8, mountOptions=["noexec", "mode=1770"])]))], network="none")
check(lines[:3], ["512", "1000", "0"])
check(bits(after(lines, "CapEff:")[0], CHOWN, NET_RAW, NET_ADMIN, SYS_TIME), [0, 0, 1, 1])
check(after(lines, "NoNewPrivs:"), ["1"])
t, shm = [[l for l in lines if " %s " % p in l][0] for p in ("/t", "/dev/shm")]
for word in ("tmpfs", "noexec", "size=8192k", "mode=1770"):
    assert word in t, (word, t)
assert "size=32768k" in shm, shm
assert "somaxconn 77 msgmax 9000" in lines, lines
assert "cannot write" in lines and "can read" in lines, lines
# As a weight of cgroup v2, 512 shares are 59 of 100: the curve on which 1,024 shares are exactly a weight of 100.
assert after(lines, "shares")[0] in ("512", "59"), lines
check(after(lines, "soft"), [str(48 << 20)])
first = after(lines, "first process")[0]
assert "mine 1" not in first, first
check(after(lines, "zombies"), ["0"])

# A privileged container has every capability, the host's devices, and may mount. Swap is the container's own.
task, lines = run([sh("""
grep CapEff /proc/self/status
ls /dev/kmsg
mount -t tmpfs none /tmp && echo mounted
echo swap $(cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max 2>/dev/null)
""", memory=64, privileged=True, linuxParameters=dict(maxSwap=32))], network="none")
swap_is_accounted = "CannotCreateContainerError" not in task["containers"][0].get("reason", "")
if not swap_is_accounted:
    # A kernel that does not account for swap: named, not ignored.
    assert "maxSwap" in task["containers"][0]["reason"], task
else:
    check(bits(after(lines, "CapEff:")[0], CHOWN, NET_ADMIN, 21), [1, 1, 1])
    assert "/dev/kmsg" in lines and "mounted" in lines, lines
    assert after(lines, "swap")[0] in (str(96 << 20), str(32 << 20)), lines

# Swappiness is cgroup v1's: v2 has nothing like it, so there it is refused by its name.
task, lines = run([sh("cat /sys/fs/cgroup/memory/memory.swappiness", memory=64, linuxParameters=dict(maxSwap=32, swappiness=11))], network="none")
if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
    reason = task["containers"][0]["reason"]
    assert reason.startswith("CannotCreateContainerError") and "swappiness" in reason, task
elif swap_is_accounted:
    check(lines, ["11", "end"])

# A limit that this machine may not give, and a security module that it does not have, are named.
task, _ = run([sh("true", ulimits=[dict(name="nofile", softLimit=1024, hardLimit=2_000_000_000)])], network="none")
reason = task["containers"][0]["reason"]
assert "nofile" in reason and "2000000000" in reason, task
task, _ = run([sh("true", dockerSecurityOptions=["apparmor:no-such-profile-here"])], network="none")
reason = task["containers"][0].get("reason", "") + task["stoppedReason"]
assert "AppArmor" in reason or "apparmor" in reason, task
"#,
    );
}
