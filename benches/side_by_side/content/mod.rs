//! What is pulled: images, generated the same on every run and laid out as files under the paths of the registry API.
//!
//! The imitation registry and nginx serve the very same files. Only blobs that come by the hundred thousand are not
//! files: the registry makes them up when they are asked for.

mod generate;
mod library;

pub(crate) use generate::{generated, mix};
pub(crate) use library::{Blob, Content, Entry, Image, Kind, Library};
