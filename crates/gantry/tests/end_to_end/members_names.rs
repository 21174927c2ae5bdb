//! Names, terminals, ports and links: how a container is called and reached.

use crate::containers::with_image;
use crate::image::push_busybox;
use crate::installation::Installation;

#[test]
fn a_container_gets_its_names_and_terminal() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "names", &[]);
    with_image(
        &gantry,
        &image,
        r#"
names = dict(dnsServers=["10.9.8.7", "10.9.8.6"], dnsSearchDomains=["a.example", "b.example"])
text = """
hostname; cat /etc/hostname
cat /etc/resolv.conf
grep db.example /etc/hosts
test -t 0 && test -t 1 && echo terminal
"""
hosts = [dict(hostname="db.example", ipAddress="10.1.2.3")]
task, lines = run([sh(text, hostname="web", extraHosts=hosts, pseudoTerminal=True, dockerLabels={"team": "blue"}, **names)], network="bridge")
lines = [l.rstrip("\r") for l in lines]
check(lines[:2], ["web", "web"])
for wanted in ["nameserver 10.9.8.7", "nameserver 10.9.8.6", "search a.example b.example", "terminal"]:
    assert wanted in lines, (wanted, lines)
assert any(l.split() == ["10.1.2.3", "db.example"] for l in lines), lines
# With the host's network the names stand beside the host's.
task, lines = run([sh("cat /etc/resolv.conf; cat /etc/hosts", extraHosts=hosts, **names)])
assert "nameserver 10.9.8.7" in lines and "search a.example b.example" in lines, lines
assert any("localhost" in l for l in lines) and any(l.split() == ["10.1.2.3", "db.example"] for l in lines), lines
# Standard input is at its end, unless the container is interactive: then reading waits.
task, lines = run([
    dict(name="c", command=["sh", "-c", "cat; echo ended; echo end"]),
    dict(name="open", essential=False, stopTimeout=1, interactive=True, command=["sh", "-c", "echo waits; cat; echo ended too"]),
], network="none")
assert "ended" in lines and "waits" in lines and "ended too" not in lines, lines
definition = ecs.describe_task_definition(taskDefinition="t0")["taskDefinition"]
check(definition["containerDefinitions"][0]["dockerLabels"], {"team": "blue"})
"#,
    );
}

#[test]
fn ports_and_links_join_the_containers_of_a_bridge_task() {
    let gantry = Installation::up();
    let image = push_busybox(&gantry, "bridge", &[]);
    with_image(
        &gantry,
        &image,
        r#"
import socket
serve = lambda word: ["sh", "-c", "while true; do echo %s | /bin/busybox nc -l -p 8080; done" % word]
def ask(port):
    deadline = time.time() + 20 * PATIENCE
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
                text = s.makefile().read().strip()
                if text:
                    return text
        except OSError:
            pass
        assert time.time() < deadline, "nobody answers on port %d" % port
        time.sleep(0.05)
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    free = s.getsockname()[1]
common = dict(image=IMAGE, memory=32, stopTimeout=1)
ecs.register_task_definition(family="bridge", networkMode="bridge", containerDefinitions=[
    dict(common, name="db", command=serve("db"), portMappings=[dict(containerPort=8080, hostPort=free, protocol="tcp")]),
    dict(common, name="web", command=["sh", "-c", "/bin/busybox nc store 8080 > /tmp/seen; grep -q db /tmp/seen && while true; do echo linked | /bin/busybox nc -l -p 8080; done"],
         links=["db:store"], portMappings=[dict(containerPort=8080)]),
    dict(common, name="alone", command=["sh", "-c", "test $(ls /sys/class/net) = lo && sleep 1000"], disableNetworking=True),
])
arn = ecs.run_task(taskDefinition="bridge")["tasks"][0]["taskArn"]
ecs.get_waiter("tasks_running").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
bindings = {}
deadline = time.time() + 10 * PATIENCE
while len(bindings) < 2 and time.time() < deadline:
    task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
    bindings = {c["name"]: c["networkBindings"][0] for c in task["containers"] if c.get("networkBindings")}
check((bindings["db"]["hostPort"], bindings["db"]["containerPort"], bindings["db"]["protocol"]), (free, 8080, "tcp"))
assert bindings["web"]["hostPort"] >= 32768, bindings
check(ask(free), "db")
check(ask(bindings["web"]["hostPort"]), "linked")
task = ecs.describe_tasks(tasks=[arn])["tasks"][0]
check({c["name"]: c["lastStatus"] for c in task["containers"]}, dict(db="RUNNING", web="RUNNING", alone="RUNNING"))
ecs.stop_task(task=arn)
ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=60 * PATIENCE))
"#,
    );
}
