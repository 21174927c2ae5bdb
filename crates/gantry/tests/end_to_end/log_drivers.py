"""Receivers of logs that read the real formats, each on a port of its own, and tasks that write to them."""
import base64, gzip, json, os, socket, struct, threading, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def unpack(data, at):
    """One value of MessagePack, and where the next begins."""
    def number(size, at):
        return int.from_bytes(data[at:at + size], "big"), at + size
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind < 0xc0 or kind in (0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf):
        if kind < 0xc0:
            count = kind & (0x1f if kind >= 0xa0 else 0x0f)
        else:
            count, at = number({0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}[kind], at)
        if 0xa0 <= kind < 0xc0 or kind in (0xd9, 0xda, 0xdb):
            if at + count > len(data):
                raise IndexError
            return data[at:at + count].decode(), at + count
        if 0x90 <= kind < 0xa0 or kind in (0xdc, 0xdd):
            items = []
            for _ in range(count):
                item, at = unpack(data, at)
                items.append(item)
            return items, at
        pairs = {}
        for _ in range(count):
            key, at = unpack(data, at)
            pairs[key], at = unpack(data, at)
        return pairs, at
    if kind == 0xce:
        if at + 4 > len(data):
            raise IndexError
        return number(4, at)
    if kind == 0xd7:
        if at + 9 > len(data):
            raise IndexError
        assert data[at] == 0, data[at]
        seconds, at = number(4, at + 1)
        nanoseconds, at = number(4, at)
        return seconds + nanoseconds / 1e9, at
    raise AssertionError("a type that nothing here writes: %x" % kind)


def listen(handle, kind=socket.SOCK_STREAM):
    """A socket whose connections (or itself, for datagrams) go to `handle`; its port."""
    server = socket.socket(socket.AF_INET, kind)
    server.bind(("127.0.0.1", 0))
    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=handle, args=(connection,), daemon=True).start()
    if kind == socket.SOCK_STREAM:
        server.listen()
    threading.Thread(target=accept if kind == socket.SOCK_STREAM else lambda: handle(server), daemon=True).start()
    return server.getsockname()[1]


fluentd = []
def fluentd_sink(connection):
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return
        data += more
        while data:
            try:
                (tag, entries, option), end = unpack(data, 0)
            except IndexError:
                break
            data = data[end:]
            assert option["size"] == len(entries), option
            fluentd.extend((tag, time, record) for time, record in entries)
            if "chunk" in option:
                chunk = option["chunk"].encode()
                connection.sendall(b"\x81\xa3ack" + bytes([0xa0 | len(chunk)]) + chunk)


syslog_udp, syslog_tcp = [], []
def syslog_datagrams(server):
    while True:
        syslog_udp.append(server.recv(65536).decode())
def syslog_stream(connection):
    for line in connection.makefile():
        syslog_tcp.append(line.rstrip("\n"))


gelf_udp, gelf_tcp, gelf_chunks = [], [], {}
def gelf_datagrams(server):
    while True:
        data = server.recv(65536)
        if data[:2] == b"\x1e\x0f":
            assert len(data) <= 1420, len(data)
            name, number, count = data[2:10], data[10], data[11]
            pieces = gelf_chunks.setdefault(name, {})
            pieces[number] = data[12:]
            if len(pieces) < count:
                continue
            data = b"".join(pieces[n] for n in range(count))
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        elif data[:1] == b"\x78":
            data = zlib.decompress(data)
        gelf_udp.append(json.loads(data))
def gelf_stream(connection):
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return
        data += more
        *messages, data = data.split(b"\0")
        gelf_tcp.extend(json.loads(message) for message in messages)


loki, loki_answers = [], [503, 429]
class Loki(BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/loki/api/v1/push", self.path
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = loki_answers.pop() if loki_answers else 204
        if status == 204:
            loki.append((self.headers.get("X-Scope-OrgID"), body))
        self.send_response(status)
        self.end_headers()
    def log_message(self, *_):
        pass
loki_server = ThreadingHTTPServer(("127.0.0.1", 0), Loki)
threading.Thread(target=loki_server.serve_forever, daemon=True).start()

ports = dict(
    fluentd=listen(fluentd_sink),
    syslog_udp=listen(syslog_datagrams, socket.SOCK_DGRAM),
    syslog_tcp=listen(syslog_stream),
    gelf_udp=listen(gelf_datagrams, socket.SOCK_DGRAM),
    gelf_tcp=listen(gelf_stream),
    loki=loki_server.server_address[1],
)

import boto3, itertools, time
ecs, logs = boto3.client("ecs"), boto3.client("logs")
families = itertools.count()


def start(driver, options, text, **more):
    family = "log%d" % next(families)
    container = dict(name="web", image=IMAGE, memory=64, command=["sh", "-c", text], **more,
                     logConfiguration=dict(logDriver=driver, options=options))
    ecs.register_task_definition(family=family, networkMode="host", containerDefinitions=[container])
    answer = ecs.run_task(taskDefinition=family)
    assert not answer["failures"], answer
    return answer["tasks"][0]["taskArn"]


def end(arn):
    ecs.get_waiter("tasks_stopped").wait(tasks=[arn], WaiterConfig=dict(Delay=1, MaxAttempts=90 * PATIENCE))
    return ecs.describe_tasks(tasks=[arn])["tasks"][0]


def until(what, look):
    deadline = time.time() + 30 * PATIENCE
    while True:
        seen = look()
        if seen or time.time() > deadline:
            assert seen, what
            return seen
        time.sleep(0.05)


def check(seen, wanted):
    assert seen == wanted, (seen, wanted)


WRITE = "echo one; sleep 0.3; echo 'two grüß' >&2; sleep 0.3; echo three"
LINES = ["one", "two grüß", "three"]
moment = time.time()

# All at once; each is looked at when it is done.
json_task = start("json-file", {"max-size": "2k", "max-file": "3", "labels": "team", "tag": "{{.Name}}"},
                  "for i in $(seq 1 60); do echo line $i; done; echo err >&2", dockerLabels={"team": "a"})
fluentd_task = start("fluentd", {"fluentd-address": "localhost:%d" % ports["fluentd"], "tag": "docker.{{.Name}}",
    "fluentd-sub-second-precision": "true", "fluentd-request-ack": "true", "env": "STAGE"}, WRITE,
    environment=[{"name": "STAGE", "value": "test"}])
udp_task = start("syslog", {"syslog-address": "udp://127.0.0.1:%d" % ports["syslog_udp"], "syslog-facility": "local0", "tag": "app"}, WRITE)
tcp_task = start("syslog", {"syslog-address": "tcp://127.0.0.1:%d" % ports["syslog_tcp"], "syslog-format": "rfc5424micro", "tag": "app"}, WRITE)
gelf_task = start("gelf", {"gelf-address": "udp://127.0.0.1:%d" % ports["gelf_udp"]},
                  WRITE + "; head -c 12000 /dev/urandom | busybox od -An -tx1 | busybox tr -d ' \\n'; echo")
gelf_tcp_task = start("gelf", {"gelf-address": "tcp://127.0.0.1:%d" % ports["gelf_tcp"], "mode": "blocking"}, WRITE)
loki_task = start("loki", {"loki-url": "http://127.0.0.1:%d/loki/api/v1/push" % ports["loki"], "loki-tenant-id": "us",
    "loki-external-labels": "job=test,container={{.Name}}", "loki-batch-wait": "200ms", "loki-min-backoff": "100ms"}, WRITE)
multi_task = start("awslogs", {"awslogs-group": "/multi", "awslogs-region": "us-east-1", "awslogs-create-group": "true",
    "awslogs-stream-prefix": "p", "awslogs-multiline-pattern": "^[A-Z]+ ", "mode": "blocking"},
    "echo 'ERROR first'; echo '  at a'; echo '  at b'; echo 'INFO second'; echo '  more'")
dated_task = start("awslogs", {"awslogs-group": "/dated", "awslogs-region": "us-east-1", "awslogs-create-group": "true",
    "awslogs-stream-prefix": "p", "awslogs-datetime-format": "%Y-%m-%d %H:%M:%S", "awslogs-force-flush-interval-seconds": "1"},
    "echo '2026-01-02 03:04:05 up'; echo '  and on'; echo '2026-01-02 03:04:06 last'; sleep 1000")

# Nobody listens: a container that logs to Fluentd does not start, unless it may wait.
nobody = socket.socket(); nobody.bind(("127.0.0.1", 0))
refused_task = start("fluentd", {"fluentd-address": "127.0.0.1:%d" % nobody.getsockname()[1]}, WRITE)
late_port = nobody.getsockname()[1]
late_task = start("fluentd", {"fluentd-address": "127.0.0.1:%d" % late_port, "fluentd-async": "true", "fluentd-retry-wait": "200ms", "tag": "late"}, WRITE)
unknown_task = start("splunk", {"splunk-token": "x", "splunk-url": "y"}, WRITE)
option_task = start("json-file", {"max-sise": "1m"}, WRITE)

end(json_task)
folder = os.path.join(DATA, "node", "agent", "container-logs", json_task.split("/")[-1], "web")
files = until("json files", lambda: os.path.exists(os.path.join(folder, "ended")) and sorted(f for f in os.listdir(folder) if f != "ended"))
check(files, ["web-json.log", "web-json.log.1", "web-json.log.2"])
entries = []
for name in reversed(files):
    path = os.path.join(folder, name)
    assert os.path.getsize(path) <= 2048, path
    entries += [json.loads(line) for line in open(path)]
numbers = [int(entry["log"].split()[1]) for entry in entries if entry["stream"] == "stdout"]
assert numbers == list(range(numbers[0], 61)) and len(numbers) > 20, numbers
assert [e["log"] for e in entries if e["stream"] == "stderr"] in ([], ["err\n"]), entries
assert all(entry["attrs"] == {"team": "a", "tag": "web"} and entry["time"].endswith("Z") for entry in entries), entries[0]

end(fluentd_task)
mine = until("fluentd", lambda: len([e for e in fluentd if e[0] == "docker.web"]) >= 3 and [e for e in fluentd if e[0] == "docker.web"])
check([record["log"] for _, _, record in mine], LINES)
check([record["source"] for _, _, record in mine], ["stdout", "stderr", "stdout"])
assert all(record["STAGE"] == "test" and record["container_name"] == "/web" for _, _, record in mine), mine
assert all(abs(time_ - moment) < 300 for _, time_, _ in mine) and any(time_ != int(time_) for _, time_, _ in mine), mine

end(udp_task)
until("syslog over UDP", lambda: len(syslog_udp) >= 3)
check([m.split("]: ", 1)[1] for m in syslog_udp], LINES)
assert syslog_udp[0].startswith("<134>") and syslog_udp[1].startswith("<131>") and " app[" in syslog_udp[0], syslog_udp
end(tcp_task)
until("syslog over TCP", lambda: len(syslog_tcp) >= 3)
check([m.split(" - ", 1)[1] for m in syslog_tcp], LINES)
assert syslog_tcp[0].startswith("<30>1 20") and len(syslog_tcp[0].split()[1].split(".")[1]) == 7, syslog_tcp

end(gelf_task)
until("gelf over UDP", lambda: len(gelf_udp) >= 4)
check([m["short_message"] for m in gelf_udp[:3]], LINES)
# The long line came in pieces of 16 KiB, each in several chunks.
long = "".join(m["short_message"] for m in gelf_udp[3:])
until("the long line", lambda: len("".join(m["short_message"] for m in gelf_udp[3:])) == 24000)
assert gelf_chunks and [m["level"] for m in gelf_udp[:3]] == [6, 3, 6], gelf_udp[:3]
assert all(m["version"] == "1.1" and m["_container_name"] == "web" and abs(m["timestamp"] - moment) < 300 for m in gelf_udp)
end(gelf_tcp_task)
until("gelf over TCP", lambda: len(gelf_tcp) >= 3)
check([m["short_message"] for m in gelf_tcp], LINES)

end(loki_task)
def loki_lines():
    found = [(int(at), line, stream["stream"]) for _, body in loki for stream in body["streams"] for at, line in stream["values"]]
    return len(found) >= 3 and sorted(found, key=lambda it: it[0])
found = until("loki", loki_lines)
check([line for _, line, _ in found], LINES)
check(found[0][2], {"job": "test", "container": "web", "source": "stdout"})
check(found[1][2]["source"], "stderr")
assert all(tenant == "us" for tenant, _ in loki) and not loki_answers, (loki, loki_answers)

def events(group, arn):
    return [e["message"] for e in logs.get_log_events(logGroupName=group, startFromHead=True, logStreamName="p/web/" + arn.split("/")[-1])["events"]]
end(multi_task)
until("events of several lines", lambda: len(events("/multi", multi_task)) >= 2)
check(events("/multi", multi_task), ["ERROR first\n  at a\n  at b", "INFO second\n  more"])
# The last event has no successor: silence ends it, while the container still runs.
until("an event that silence ended", lambda: len(events("/dated", dated_task)) >= 2)
check(events("/dated", dated_task), ["2026-01-02 03:04:05 up\n  and on", "2026-01-02 03:04:06 last"])
ecs.stop_task(task=dated_task)

for arn, words in [(refused_task, ["fluentd", "logging driver"]), (unknown_task, ["logDriver=splunk"]), (option_task, ["max-sise"])]:
    task = end(arn)
    said = str(task.get("stoppedReason")) + str(task["containers"][0].get("reason"))
    check(task["stopCode"], "TaskFailedToStart")
    assert all(word in said for word in words), (words, said)

end(late_task)
nobody.close()
server = socket.create_server(("127.0.0.1", late_port))
threading.Thread(target=lambda: fluentd_sink(server.accept()[0]), daemon=True).start()
mine = until("what waited", lambda: len([e for e in fluentd if e[0] == "late"]) >= 3 and [e for e in fluentd if e[0] == "late"])
check([record["log"] for _, _, record in mine], LINES)
print("all true")
