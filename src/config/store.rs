//! The store: where, and how much.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::bucket::BucketConfig;

/// Where content is kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory, made when missing. With a bucket it holds downloads on their way, and what is asked for often.
    pub path: PathBuf,
    /// The most that blobs, manifests and spools may take together.
    pub max_size: SizeLimit,
    /// What stays free on the file system, whoever fills it.
    pub keep_free: SizeLimit,
    /// How long stored content is believed before it is hashed again.
    pub verify_interval: Duration,
    /// How many bytes per second are hashed again in the background; 0 is none.
    pub scrub_rate: u64,
    /// How long content is kept since it was stored, whatever room there is.
    pub max_age: Option<Duration>,
    /// How long content is kept since it was last used, whatever room there is.
    pub max_idle: Option<Duration>,
    /// The bucket of a store of kind `s3`. `None`: the directory is all there is.
    pub bucket: Option<BucketConfig>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./weir-data"),
            max_size: SizeLimit::Percent(80.0),
            keep_free: SizeLimit::Percent(5.0),
            verify_interval: Duration::from_secs(7 * 24 * 60 * 60),
            scrub_rate: 8 * 1024 * 1024,
            max_age: None,
            max_idle: None,
            bucket: None,
        }
    }
}

/// An amount of storage: absolute, or a share of the file system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SizeLimit {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the file system's size, 0 to 100.
    Percent(f64),
}

impl SizeLimit {
    /// The amount in bytes on a file system of `total` bytes.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a disk need not be exact to the byte"
    )]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            // The largest unit that says it exactly, so that what is printed can be read again.
            Self::Bytes(bytes) => match UNITS.iter().find(|(unit, _)| bytes > 0 && bytes % unit == 0) {
                Some((unit, name)) => write!(f, "{}{name}", bytes / unit),
                None => write!(f, "{bytes}B"),
            },
        }
    }
}
