//! Results as JSON, for machines and later comparisons.

use serde_json::{Map, Value, json};

use super::bars::Bar;
use super::metric::Row;
use super::results::Results;

/// Every median with its ends, and every bar.
pub(crate) fn to_json(results: &Results, bars: &[Bar]) -> Value {
    let mut rows = Map::new();
    for row in Row::ALL {
        let mut peers = Map::new();
        for peer in results.peers(row) {
            let metrics = results.metrics(row).into_iter().filter_map(|metric| {
                let median = results.median(row, peer, metric)?;
                let value = json!({ "median": median.median, "min": median.min, "max": median.max });
                Some((metric.title().to_owned(), value))
            });
            peers.insert(peer.to_string(), Value::Object(metrics.collect()));
        }
        if !peers.is_empty() {
            rows.insert(row.title().to_owned(), Value::Object(peers));
        }
    }
    let bars: Vec<_> =
        bars.iter().map(|bar| json!({ "row": bar.row, "bar": bar.wanted, "value": bar.got, "met": bar.met })).collect();
    json!({ "bars": bars, "rows": rows, "complaints": results.complaints() })
}
