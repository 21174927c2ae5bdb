//! One installation of Gantry for one test: started on a free port and a folder of its own,
//! and gone afterwards, also when the test itself is killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The gantry that is tested.
pub const GANTRY: &str = env!("CARGO_BIN_EXE_gantry");

/// A running (or just killed) `gantry up` and what a user's shell would know of it.
pub struct Installation {
    folder: tempfile::TempDir,
    listen: String,
    /// What `up` is told besides.
    words: Vec<String>,
    environment: Vec<(String, String)>,
    up: Option<Child>,
    guard: Child,
    exports: Vec<(String, String)>,
}

impl Installation {
    /// Starts Gantry on a free port and a new folder, and reads its exports.
    pub fn up() -> Installation {
        Installation::up_with(&[], &[])
    }

    /// On a free port of an address of its own, with further words for `gantry up`.
    pub fn up_at(address: &str, words: &[&str]) -> Installation {
        Installation::made(&format!("{address}:0"), words, &[], &[])
    }

    /// With further environment variables, and with small disks of their own mounted at some folders
    /// of the data directory: a folder and its size, as `mount -o size=` takes it.
    pub fn up_with(environment: &[(&str, &str)], disks: &[(&str, &str)]) -> Installation {
        Installation::made("127.0.0.1:0", &[], environment, disks)
    }

    fn made(
        listen: &str,
        words: &[&str],
        environment: &[(&str, &str)],
        disks: &[(&str, &str)],
    ) -> Installation {
        let folder = tempfile::Builder::new()
            .prefix("gantry-test-")
            .tempdir()
            .expect("a temporary folder");
        let guard = guard(folder.path());
        for (below, size) in disks {
            let at = folder.path().join("data").join(below);
            std::fs::create_dir_all(&at).expect("a folder to mount at");
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
                .arg(&at)
                .status();
            assert!(mounted.expect("mount").success(), "{}", at.display());
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut installation = Installation {
            folder,
            listen: listen.to_owned(),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: environment.iter().map(own).collect(),
            up: None,
            guard,
            exports: Vec::new(),
        };
        installation.start();
        installation
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A place for a test's own files, removed with the installation.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn installation_id(&self) -> String {
        let file =
            std::fs::read(self.data_dir().join("installation.json")).expect("installation.json");
        let value: Value = serde_json::from_slice(&file).expect("JSON");
        value["installation_id"].as_str().expect("an id").to_owned()
    }

    /// Starts `gantry up` again on the same folder and port.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("gantry.log"))
            .expect("a log file");
        let mut child = Command::new(GANTRY)
            .args(["up", "--listen", &self.listen, "--data-dir"])
            .arg(self.data_dir())
            .args(&self.words)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("gantry up");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout"))
            .read_line(&mut line)
            .expect("the serving line");
        assert!(
            line.contains("http://"),
            "gantry up said {line:?}; its log:\n{}",
            self.log()
        );
        self.up = Some(child);
        self.exports = self.read_exports();
        let endpoint = self.endpoint();
        endpoint
            .trim_start_matches("http://")
            .clone_into(&mut self.listen);
        // `localhost` and 127.0.0.1 are the same port; what is kept is the address to listen on again.
        self.listen = self.listen.replace("localhost", "127.0.0.1");
    }

    /// The log of every start so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("gantry.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.up.as_ref().expect("gantry runs").id()
    }

    /// Ends `gantry up` with a signal and waits for its end.
    pub fn signal_and_wait(&mut self, signal: &str) -> std::process::ExitStatus {
        let mut child = self.up.take().expect("gantry runs");
        send_signal(child.id(), signal);
        child.wait().expect("gantry's end")
    }

    /// Runs `gantry` with further words on this data directory.
    pub fn gantry(&self, words: &[&str]) -> Output {
        Command::new(GANTRY)
            .args(words)
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .output()
            .expect("gantry")
    }

    pub fn endpoint(&self) -> String {
        self.export("AWS_ENDPOINT_URL")
    }

    /// `localhost:PORT`, as it stands in image references.
    pub fn registry(&self) -> String {
        self.endpoint().trim_start_matches("http://").to_owned()
    }

    pub fn export(&self, name: &str) -> String {
        self.exports
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
            .unwrap_or_default()
    }

    /// A command with this installation's exports and nothing of the machine's own AWS configuration.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in [
            "AWS_PROFILE",
            "AWS_SESSION_TOKEN",
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
        ] {
            command.env_remove(name);
        }
        command
            .envs(self.exports.iter().cloned())
            .env("AWS_CONFIG_FILE", self.scratch("no-config"))
            .env(
                "AWS_SHARED_CREDENTIALS_FILE",
                self.scratch("no-credentials"),
            )
            .env("AWS_PAGER", "")
            .env("NO_PROXY", "*")
            .stdin(Stdio::null());
        command
    }

    /// `aws …`, whose answer is JSON (or nothing).
    pub fn aws(&self, words: &[&str]) -> Value {
        let output = self
            .command("aws")
            .args(words)
            .args(["--output", "json"])
            .output()
            .expect("aws");
        assert!(
            output.status.success(),
            "aws {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if output.stdout.iter().all(u8::is_ascii_whitespace) {
            return Value::Null;
        }
        serde_json::from_slice(&output.stdout).expect("JSON from aws")
    }

    /// `aws …` that must be refused; returns what it said.
    pub fn aws_refused(&self, words: &[&str]) -> String {
        let output = self.command("aws").args(words).output().expect("aws");
        assert!(
            !output.status.success(),
            "aws {words:?} should be refused: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).trim().to_owned()
    }

    /// A Python program with boto3; returns what it printed. It takes its deadlines `PATIENCE` times.
    pub fn python(&self, program: &str) -> String {
        let output = self
            .command("python3")
            .args(["-c", &format!("PATIENCE = {}\n{program}", patience())])
            .output()
            .expect("python3");
        assert!(
            output.status.success(),
            "python: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn read_exports(&self) -> Vec<(String, String)> {
        let output = self.gantry(&["env"]);
        assert!(
            output.status.success(),
            "gantry env: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("gantry's log:\n{}", tail(&self.log()));
        }
        // `down` ends a running `up` too, and everything it left.
        let down = self.gantry(&["down"]);
        if let Some(mut child) = self.up.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !down.status.success() && !std::thread::panicking() {
            panic!("gantry down: {}", String::from_utf8_lossy(&down.stderr));
        }
        // The guard sees its pipe close and finds nothing left to do.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A process in a session of its own that cleans up when this test's process is gone, however it went.
///
/// First it kills whoever has the folder on its command line, again and again until there is nobody: an
/// `up` that has not yet written that it runs is not known to `down`, and what it forked just now would
/// make containers after `down` has looked. It keeps gantry's program open, because a build may replace
/// the file, and has the folder in its environment only, so that it does not find itself.
pub fn guard(folder: &Path) -> Child {
    let script = r#"
trap '' HUP INT TERM
exec 9<"$GUARD_GANTRY"
read -r _
while pids=$(printf %s "$GUARD_FOLDER" | grep -laFf - /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3); [ -n "$pids" ]; do
    kill -9 $pids 2>/dev/null
done
for installation in "$GUARD_FOLDER"/*/installation.json; do
    for attempt in 1 2 3; do
        /proc/self/fd/9 down --data-dir "${installation%/*}" && break
    done
done
while read -r _ _ _ _ target _; do
    case "$target" in "$GUARD_FOLDER"/*) umount -l "$target";; esac
done </proc/self/mountinfo
rm -rf "$GUARD_FOLDER"
"#;
    Command::new("setsid")
        .args(["sh", "-c", script, "guard"])
        .env("GUARD_GANTRY", GANTRY)
        .env("GUARD_FOLDER", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setsid")
}

/// Sends a signal to a process that this test started.
pub fn send_signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(pid.to_string())
        .status()
        .expect("kill");
    assert!(status.success(), "kill -{signal} {pid}");
}

/// Waits until `look` gives a value; panics with what was last seen.
pub fn eventually<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let within = within * patience();
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > within => {
                panic!("{what}: not within {within:?}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}

/// How many times longer everything may take here: an emulated machine says so of itself.
pub fn patience() -> u32 {
    let said = std::env::var("GANTRY_TEST_PATIENCE").ok();
    said.and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
