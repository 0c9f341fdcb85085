//! What came out: samples, medians, bars, tables.

mod bars;
mod chart;
mod curve;
mod json;
mod metric;
mod page;
mod results;
mod table;

pub(crate) use bars::{Strictness, judge};
pub(crate) use curve::{Axis, Curves};
pub(crate) use json::to_json;
pub(crate) use metric::{Metric, Row};
pub(crate) use page::update;
pub(crate) use results::{Results, Sample};
pub(crate) use table::{bars_table, details};
