//! Upstreams as a table for people.

use super::{Surface, Upstream};
use crate::cli::table::{in_words, rows};

/// One line for each upstream, below a line of titles.
pub(super) fn of(upstreams: &[Upstream]) -> String {
    let titles = ["REGISTRY", "UPSTREAM", "STATE", "LAST ERROR"].map(str::to_owned);
    rows(titles, upstreams.iter().map(row))
}

fn row(upstream: &Upstream) -> [String; 4] {
    let is_open = |surface: &&Surface| surface.state != "closed";
    let failing: Vec<&Surface> =
        upstream.surfaces.iter().filter(|surface| is_open(surface) || surface.failures > 0).collect();
    let open: Vec<String> = failing.iter().copied().filter(is_open).map(in_trouble).collect();
    let state = match (upstream.disabled_for_seconds, upstream.up) {
        (Some(seconds), _) => format!("disabled for {}", in_words(seconds)),
        (None, _) if !open.is_empty() => open.join(", "),
        (None, Some(true)) => "up".to_owned(),
        (None, Some(false)) => "down".to_owned(),
        (None, None) if failing.is_empty() => "not asked yet".to_owned(),
        (None, None) => "failing".to_owned(),
    };
    // What was wrong once and is well again is no news.
    let worst = failing.iter().find(|surface| is_open(surface)).or(failing.first());
    let found = upstream.probed.as_ref().filter(|_| upstream.up == Some(false)).map(|probe| probe.found.clone());
    let error = worst.and_then(|surface| surface.last_error.clone()).or(found);
    [upstream.registry.clone(), upstream.name.clone(), state, error.unwrap_or_default()]
}

fn in_trouble(surface: &Surface) -> String {
    format!("{} {}", surface.name, surface.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_and_what_is_well_is_not() {
        let surface = |name: &str, state: &str, failures: u32, last_error: &str| serde_json::json!({ "name": name, "state": state, "failures": failures, "last_error": last_error });
        let well = || surface("api", "closed", 0, "Answered 503 last week");
        let upstream = |registry: &str, name: &str, up: Option<bool>, disabled: Option<u64>, surfaces: Vec<_>| {
            serde_json::json!({
                "registry": registry, "name": name, "up": up, "disabled_for_seconds": disabled, "surfaces": surfaces,
                "probed": { "seconds_ago": 7, "found": "Answered with a web page" },
            })
        };
        let blobs_fail = vec![well(), surface("blob", "open", 5, "Answered 500")];
        let failing = vec![surface("api", "closed", 2, "Answered 502")];
        let upstreams = serde_json::json!([
            upstream("docker.io", "hub", Some(true), None, blobs_fail),
            upstream("quay.io", "quay.io", Some(true), Some(5400), vec![well()]),
            upstream("ghcr.io", "ghcr.io", Some(true), None, vec![well()]),
            upstream("gcr.io", "gcr.io", None, None, vec![]),
            upstream("k8s.io", "k8s.io", None, None, failing),
            upstream("ecr.aws", "ecr.aws", Some(false), None, vec![well()]),
        ]);
        let upstreams: Vec<Upstream> = serde_json::from_value(upstreams).unwrap();
        let table = of(&upstreams);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "REGISTRY   UPSTREAM  STATE                LAST ERROR",
                "docker.io  hub       blob open            Answered 500",
                "quay.io    quay.io   disabled for 1h 30m",
                "ghcr.io    ghcr.io   up",
                "gcr.io     gcr.io    not asked yet",
                "k8s.io     k8s.io    failing              Answered 502",
                "ecr.aws    ecr.aws   down                 Answered with a web page",
            ]
        );
    }
}
