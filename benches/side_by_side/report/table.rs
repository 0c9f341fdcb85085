//! Results as Markdown.

use std::fmt::Write as _;

use super::bars::Bar;
use super::metric::{Metric, Row};
use super::results::Results;
use crate::peers::PeerKind;

/// One line for each bar.
pub(crate) fn bars_table(bars: &[Bar]) -> String {
    let mut text = "| row | bar | Weir | |\n|---|---|---|---|\n".to_owned();
    for bar in bars {
        let verdict = if bar.met { "met" } else { "**not met**" };
        let _ = writeln!(text, "| {} | {} | {} | {verdict} |", bar.row, bar.wanted, bar.got);
    }
    text
}

/// One table for each row, with everything that was measured.
pub(crate) fn details(results: &Results) -> String {
    let mut text = String::new();
    for row in Row::ALL {
        let peers = results.peers(row);
        if peers.is_empty() {
            continue;
        }
        let measured = results.metrics(row);
        let metrics: Vec<_> = row.columns().iter().filter(|metric| measured.contains(metric)).collect();
        let _ = writeln!(text, "\n**{}**\n", row.title());
        let titles: Vec<_> = metrics.iter().map(|metric| heading(results, row, **metric)).collect();
        let _ = writeln!(text, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
        for peer in peers {
            let cells: Vec<_> = metrics.iter().map(|metric| cell(results, row, peer, **metric)).collect();
            let _ = writeln!(text, "| {peer} | {} |", cells.join(" | "));
        }
    }
    text
}

fn heading(results: &Results, row: Row, metric: Metric) -> String {
    let has_ceiling = results.median(row, PeerKind::NginxStatic, metric).is_some();
    if metric.is_rate() && has_ceiling { format!("{} (ratio)", metric.title()) } else { metric.title().to_owned() }
}

fn cell(results: &Results, row: Row, peer: PeerKind, metric: Metric) -> String {
    let Some(median) = results.median(row, peer, metric) else { return "–".to_owned() };
    let digits = metric.digits();
    let mut text = number(median.median, digits);
    if number(median.min, digits) != number(median.max, digits) {
        let _ = write!(text, " ({}–{})", number(median.min, digits), number(median.max, digits));
    }
    if metric.is_rate()
        && let Some(ceiling) = results.median(row, PeerKind::NginxStatic, metric)
    {
        let _ = write!(text, " {:.2}×", median.median / ceiling.median);
    }
    text
}

/// A number with commas between thousands.
pub(super) fn number(value: f64, digits: usize) -> String {
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit.is_ascii_digit() && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}
