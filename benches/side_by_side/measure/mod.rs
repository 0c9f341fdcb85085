//! What a server costs, as the kernel tells it.

mod usage;

pub(crate) use usage::{Meter, Used, resident};
