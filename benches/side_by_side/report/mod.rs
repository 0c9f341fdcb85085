//! What came out: samples, medians, bars, tables.

mod bars;
mod json;
mod results;
mod table;

pub(crate) use bars::{Strictness, judge};
pub(crate) use json::to_json;
pub(crate) use results::{Metric, Results, Row, Sample};
pub(crate) use table::{bars_table, details};
