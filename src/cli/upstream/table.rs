//! Upstreams as a table for people.

use super::{Surface, Upstream};

/// One line for each upstream, below a line of titles.
pub(super) fn of(upstreams: &[Upstream]) -> String {
    let titles = ["REGISTRY", "UPSTREAM", "STATE", "LAST ERROR"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(titles).chain(upstreams.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [registry, upstream, state, error] = row;
        let line = format!("{registry:0$}  {upstream:1$}  {state:2$}  {error}", widths[0], widths[1], widths[2]);
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(upstream: &Upstream) -> [String; 4] {
    let open = || upstream.surfaces.iter().filter(|surface| surface.state != "closed");
    let state = match upstream.disabled_for_seconds {
        Some(seconds) => format!("disabled for {}", in_words(seconds)),
        None if open().next().is_none() => "up".to_owned(),
        None => open().map(in_trouble).collect::<Vec<_>>().join(", "),
    };
    let error = upstream.surfaces.iter().find_map(|surface| surface.last_error.clone());
    [upstream.registry.clone(), upstream.name.clone(), state, error.unwrap_or_default()]
}

fn in_trouble(surface: &Surface) -> String {
    format!("{} {}", surface.name, surface.state)
}

/// `1h 30m`, `45s`: its two largest units.
fn in_words(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let parts = units.map(|(size, unit)| {
        let count = rest / size;
        rest %= size;
        (count, unit)
    });
    let parts = parts.iter().filter(|(count, _)| *count > 0).take(2).map(|(count, unit)| format!("{count}{unit}"));
    let words = parts.collect::<Vec<_>>().join(" ");
    if words.is_empty() { "0s".to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_and_what_is_well_is_not() {
        let upstreams = serde_json::json!([
            { "registry": "docker.io", "name": "hub", "disabled_for_seconds": null, "surfaces": [
                { "name": "api", "state": "closed", "last_error": null },
                { "name": "blob", "state": "open", "last_error": "Answered 500" } ] },
            { "registry": "quay.io", "name": "quay.io", "disabled_for_seconds": 5400, "surfaces": [] },
            { "registry": "ghcr.io", "name": "ghcr.io", "disabled_for_seconds": null, "surfaces": [] },
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
            ]
        );
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, words) in [(0, "0s"), (59, "59s"), (3600, "1h"), (90_061, "1d 1h")] {
            assert_eq!(in_words(seconds), words);
        }
    }
}
