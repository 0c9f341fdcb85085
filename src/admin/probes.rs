//! The checks behind the probes, and the text that `?verbose` and failures show.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// One named condition of a probe.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    probe: Arc<dyn Fn() -> CheckState + Send + Sync>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckState {
    /// All is well.
    Ok,
    /// Less is offered than should be, but pulls are answered: the probe passes.
    Degraded(String),
    /// Clients should go elsewhere: the probe fails.
    Failed(String),
}

/// Where the server is in its life. Handles share one state.
#[derive(Debug, Clone)]
pub struct Lifecycle(watch::Sender<Phase>);

/// A phase in the life of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all listeners are bound.
    Starting,
    /// Requests are answered.
    Serving,
    /// No new connections; answers in progress are finished.
    Draining,
}

/// What the checks of one probe found.
#[derive(Debug)]
pub(crate) struct Report {
    lines: Vec<Line>,
    verbose: bool,
}

#[derive(Debug)]
struct Line {
    name: &'static str,
    /// `None`: the request left the check out.
    state: Option<CheckState>,
}

impl Check {
    /// A check. `probe` runs on every request for the probe, so it only looks at what is known already.
    pub fn new(name: &'static str, probe: impl Fn() -> CheckState + Send + Sync + 'static) -> Self {
        Self { name, probe: Arc::new(probe) }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Lifecycle {
    /// Moves on to `phase`; every probe sees it at once.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// The phase the server is in.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    pub(crate) fn serving(&self) -> Check {
        let this = self.clone();
        Check::new("serving", move || match this.phase() {
            Phase::Starting => CheckState::Failed("starting".to_owned()),
            Phase::Serving => CheckState::Ok,
            Phase::Draining => CheckState::Failed("draining".to_owned()),
        })
    }

    pub(crate) fn started(&self) -> Check {
        let this = self.clone();
        Check::new("listeners", move || match this.phase() {
            Phase::Starting => CheckState::Failed("not bound yet".to_owned()),
            Phase::Serving | Phase::Draining => CheckState::Ok,
        })
    }
}

impl Report {
    /// Runs `checks` as the query asks: `verbose`, and `exclude=NAME` as often as wanted.
    pub(crate) fn of(checks: &[Check], query: &str) -> Self {
        let mut verbose = false;
        let mut excluded = Vec::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "verbose" => verbose = true,
                "exclude" => excluded.push(value.into_owned()),
                _ => {}
            }
        }
        let run = |check: &Check| Line {
            name: check.name,
            state: (!excluded.iter().any(|name| name == check.name)).then(|| (check.probe)()),
        };
        Self { lines: checks.iter().map(run).collect(), verbose }
    }

    /// Whether no check that counts has failed.
    pub(crate) fn passed(&self) -> bool {
        !self.lines.iter().any(|line| matches!(line.state, Some(CheckState::Failed(_))))
    }

    /// The answer's text: `ok`, or a line for each check when asked for or when one failed.
    pub(crate) fn text(&self, probe: &str) -> String {
        if self.passed() && !self.verbose {
            return "ok\n".to_owned();
        }
        let mut lines: Vec<_> = self.lines.iter().map(Line::to_string).collect();
        lines.push(format!("{probe} check {}\n", if self.passed() { "passed" } else { "failed" }));
        lines.join("\n")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            None => write!(f, "[+]{} excluded: ok", self.name),
            Some(CheckState::Ok) => write!(f, "[+]{} ok", self.name),
            Some(CheckState::Degraded(reason)) => write!(f, "[-]{} degraded: {reason}", self.name),
            Some(CheckState::Failed(reason)) => write!(f, "[-]{} failed: {reason}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_passes_says_ok_unless_asked_for_more() {
        let checks = [Check::new("store", || CheckState::Ok)];
        assert_eq!(Report::of(&checks, "").text("readyz"), "ok\n");
        assert_eq!(Report::of(&checks, "verbose").text("readyz"), "[+]store ok\nreadyz check passed\n");
        assert_eq!(Report::of(&checks, "exclude=other&verbose=1").text("x"), "[+]store ok\nx check passed\n");
    }

    #[test]
    fn an_excluded_check_is_not_run() {
        let checks = [Check::new("store", || unreachable!("excluded"))];
        assert!(Report::of(&checks, "exclude=store").passed());
    }
}
