//! What a server costs, as the kernel tells it, and what the kernel holds of its files.

mod files;
mod usage;

pub(crate) use files::{count_files, drop_pages};
pub(crate) use usage::{Meter, Used, resident};
