//! Pinned images: fetched whole, kept current, never evicted, and served whatever upstreams say.
//!
//! The [`Keeper`] reads the records of pins, sees to it that all of each image is here, and says what of that is
//! protected and what its tags mean. The invariants:
//!
//! - What was whole stays as it was until what takes its place is whole.
//! - More is never protected than there is room for: who came first is kept first, and who is not kept is told so.
//! - Nobody who pulls waits for any of this.
//!
//! Reading order: `state` is what is known, `keeper` reads the records and has a `look` at each image, `report` is what
//! people see, `board` what pulls look at, `answer` when.

mod answer;
mod board;
mod keeper;
mod look;
mod report;
mod state;

pub(super) use board::Board;
pub use keeper::Keeper;
pub use report::{ImageReport, PinReport, PinState};
