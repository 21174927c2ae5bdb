//! What was measured, as a table with its limits.

use anyhow::bail;

use super::installation::AtRest;

/// The same thing measured of Gantry and of its peer.
#[derive(Default)]
pub struct Pair {
    pub gantry_ms: Vec<f64>,
    pub peer_ms: Vec<f64>,
}

/// All results of a run.
pub struct Report {
    rounds: usize,
    pub one: Pair,
    pub many: Pair,
    pub rest: Option<AtRest>,
    pub shim_kib: Option<f64>,
    pub serving_ms: Vec<f64>,
    pub binary_mib: Option<f64>,
}

/// One line of the table.
struct Line {
    what: &'static str,
    seen: String,
    limit: &'static str,
    met: Option<bool>,
}

impl Report {
    pub fn new(rounds: usize) -> Report {
        Report {
            rounds,
            one: Pair::default(),
            many: Pair::default(),
            rest: None,
            shim_kib: None,
            serving_ms: Vec::new(),
            binary_mib: None,
        }
    }

    /// Prints the table in Markdown on stderr, as it stands in `docs/performance.md`.
    pub fn print(&self) {
        eprintln!(
            "\nMedians, {} rounds, peer in the same run and in turns.\n",
            self.rounds
        );
        eprintln!("| what | seen | limit | |\n|---|---|---|---|");
        for line in self.lines() {
            let verdict = match line.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not compared",
            };
            eprintln!(
                "| {} | {} | {} | {verdict} |",
                line.what, line.seen, line.limit
            );
        }
    }

    /// An error that names every limit that was missed.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let missed: Vec<&str> = self
            .lines()
            .iter()
            .filter(|l| l.met == Some(false))
            .map(|l| l.what)
            .collect();
        if !missed.is_empty() {
            bail!("missed: {}", missed.join("; "));
        }
        Ok(())
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = vec![
            self.one.line(
                "RunTask → STOPPED of /bin/true, against `docker run --rm --network none`",
                5.0,
                "1/5",
            ),
            self.many.line(
                "100 tasks, first call → all RUNNING, against Docker Swarm 0 → 100",
                6.0,
                "1/6",
            ),
        ];
        let mut limited = |what, value: Option<f64>, unit: &str, limit: f64, shown| {
            if let Some(value) = value {
                lines.push(Line {
                    what,
                    seen: format!("{value:.2} {unit}"),
                    limit: shown,
                    met: Some(value <= limit),
                });
            }
        };
        limited(
            "everything at rest, PSS",
            self.rest.as_ref().map(|r| r.pss_mib),
            "MiB",
            40.0,
            "40 MiB",
        );
        limited(
            "everything at rest, processor",
            self.rest.as_ref().map(|r| r.cpu_percent),
            "% of a core",
            0.5,
            "0.5 %",
        );
        limited(
            "a shim, PSS",
            self.shim_kib.map(|kib| kib / 1024.0),
            "MiB",
            0.5,
            "0.5 MiB",
        );
        let serving = (!self.serving_ms.is_empty()).then(|| median(&self.serving_ms));
        limited(
            "start → serving, 5,000 tasks in the store",
            serving,
            "ms",
            500.0,
            "500 ms",
        );
        limited("release binary", self.binary_mib, "MiB", 40.0, "40 MiB");
        lines
    }
}

impl Pair {
    fn line(&self, what: &'static str, factor: f64, limit: &'static str) -> Line {
        let gantry = median(&self.gantry_ms);
        if self.peer_ms.is_empty() {
            return Line {
                what,
                seen: format!("{gantry:.1} ms"),
                limit,
                met: None,
            };
        }
        let peer = median(&self.peer_ms);
        let ratio = peer / gantry;
        Line {
            what,
            seen: format!("{gantry:.1} ms against {peer:.1} ms: 1/{ratio:.1}"),
            limit,
            met: Some(ratio >= factor),
        }
    }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}
