//! The vocabulary of the OCI distribution and image specifications.
//!
//! Everything here is a value: parsed once at the edge, compared and printed afterwards. The room knows no clock, no
//! runtime and no I/O, and no other room of the crate; it is what all of them talk in.
//!
//! Reading order: [`digest`], [`repository`], [`mod@reference`], [`registry`], [`image`], then what travels
//! ([`media_type`], [`descriptor`], [`platform`], [`manifest`], [`closure`], [`range`], [`selection`]), then the operations ([`request`]) and how
//! they fail ([`error_code`]).

pub mod closure;
pub mod descriptor;
pub mod digest;
pub mod error_code;
pub mod image;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod range;
pub mod reference;
pub mod registry;
pub mod repository;
pub mod request;
pub mod selection;

pub use closure::Closure;
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, Hasher};
pub use error_code::{ErrorCode, ErrorDocument};
pub use image::ImageRef;
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use platform::WantedPlatform;
pub use range::{ByteRange, RequestedRange};
pub use reference::{Reference, Tag};
pub use registry::RegistryHost;
pub use repository::RepositoryName;
pub use selection::{Selected, Selection};

/// The largest manifest Weir accepts, in bytes. Clients stop near 4 MiB too (containerd: 4 * 1048 * 1048), and the
/// specification asks registries for at least 4 MB.
pub const MAX_MANIFEST_BYTES: usize = 4 * 1048 * 1048;

/// A text that was refused, as an error may repeat it: cut, and without what does something to a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(128).collect()
}
