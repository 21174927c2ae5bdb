//! What was measured, as a table with its limits.

use anyhow::bail;

/// Of what is told so that the rest can be judged.
const NO_LIMIT: &str = "none";

/// One line of the table.
struct Line {
    what: String,
    seen: String,
    limit: String,
    /// None where there was no peer to compare with.
    met: Option<bool>,
}

/// All results of a run.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Times of the same thing: Gantry's at most `1/factor` of the peer's. Medians are compared.
    pub fn times(&mut self, what: &str, gantry_ms: &[f64], peer_ms: &[f64], factor: f64) {
        let limit = if factor >= 1.0 {
            format!("1/{factor}")
        } else {
            format!("{:.2}×", 1.0 / factor)
        };
        let gantry = median(gantry_ms);
        let peer = (!peer_ms.is_empty()).then(|| median(peer_ms));
        let seen = match peer {
            Some(peer) if peer >= gantry => {
                format!(
                    "{gantry:.1} ms against {peer:.1} ms: 1/{:.1}",
                    peer / gantry
                )
            }
            Some(peer) => format!("{gantry:.1} ms against {peer:.1} ms: {:.2}×", gantry / peer),
            None => format!("{gantry:.1} ms"),
        };
        let met = peer.map(|peer| peer / gantry >= factor);
        self.push(what, seen, limit, met);
    }

    /// Rates of the same thing: Gantry's at least `factor` times the peer's. Medians are compared.
    pub fn rates(&mut self, what: &str, unit: &str, gantry: &[f64], peer: &[f64], factor: f64) {
        let gantry = median(gantry);
        let peer = (!peer.is_empty()).then(|| median(peer));
        let seen = match peer {
            Some(peer) => format!(
                "{gantry:.0} {unit} against {peer:.0}: {:.1}×",
                gantry / peer
            ),
            None => format!("{gantry:.0} {unit}"),
        };
        let met = peer.map(|peer| gantry / peer >= factor);
        self.push(what, seen, format!("{factor}×"), met);
    }

    /// A number that may be at most so much.
    pub fn at_most(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let seen = format!("{value:.2} {unit}");
        self.push(what, seen, format!("{limit} {unit}"), Some(value <= limit));
    }

    /// A number that must be at least so much.
    pub fn at_least(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let seen = format!("{value:.1} {unit}");
        let limit_shown = format!("at least {limit} {unit}");
        self.push(what, seen, limit_shown, Some(value >= limit));
    }

    /// A number that is told and has no limit.
    pub fn told(&mut self, what: &str, value: f64, unit: &str) {
        self.push(
            what,
            format!("{value:.2} {unit}"),
            NO_LIMIT.to_owned(),
            None,
        );
    }

    fn push(&mut self, what: &str, seen: String, limit: String, met: Option<bool>) {
        self.lines.push(Line {
            what: what.to_owned(),
            seen,
            limit,
            met,
        });
    }

    /// Prints the table in Markdown on stderr, as it stands in `docs/performance.md`.
    pub fn print(&self) {
        eprintln!("\n| what | seen | limit | |\n|---|---|---|---|");
        for line in &self.lines {
            let verdict = match line.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None if line.limit == NO_LIMIT => "told",
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
            .lines
            .iter()
            .filter(|l| l.met == Some(false))
            .map(|l| l.what.as_str())
            .collect();
        if !missed.is_empty() {
            bail!("missed: {}", missed.join("; "));
        }
        Ok(())
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
