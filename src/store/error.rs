//! How the store fails. None of these ever fails a pull.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::bucket::Failure;
use super::health::rights_wanted;

/// A failure of the store while it runs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no room within the configured limits.
    #[error("The store has no room for {wanted} more bytes within `store.max_size` and `store.keep_free`")]
    Full {
        /// How many bytes were asked for.
        wanted: u64,
    },
    /// The file system failed.
    #[error("The store failed to {operation}: {source}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The directory could not be locked at start, so another process may be writing to it.
    #[error(
        "The store could not be locked at start, so nothing is written to it: restart weir when its disk can be written"
    )]
    NotLocked,
    /// The disk failed again and again, and is left alone until a probe finds that it works.
    #[error("The store keeps failing, so nothing is written to it until it works again")]
    LeftAlone,
    /// A file ended before its length: somebody cut it.
    #[error("A stored file ended at byte {offset}, before its length")]
    Truncated {
        /// Where it ended.
        offset: u64,
    },
    /// The bucket failed.
    #[error("The bucket failed to {operation}: {failure}")]
    Bucket {
        /// What was asked of it, as a verb.
        operation: &'static str,
        /// How it failed.
        failure: Failure,
    },
    /// A later release laid out the bucket.
    #[error(
        "The bucket has layout {found}, written by a later release; this one reads up to {known}: upgrade weir, or use another `store.s3.prefix`"
    )]
    BucketLayout {
        /// The layout in the bucket.
        found: String,
        /// The newest layout known.
        known: u32,
    },
    /// The content does not hash to the name it was to be stored under.
    #[error("The content does not hash to the digest it was to be stored under")]
    Mismatch,
}

impl StoreError {
    /// What was tried, for the metric.
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Full { .. } => "reserve",
            Self::Io { operation, .. } | Self::Bucket { operation, .. } => operation,
            Self::NotLocked => "lock",
            Self::BucketLayout { .. } => "layout",
            Self::LeftAlone => "write",
            Self::Truncated { .. } => "read",
            Self::Mismatch => "publish",
        }
    }

    /// The kind of failure, for the metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Full { .. } => "full",
            Self::NotLocked => "not_locked",
            Self::LeftAlone => "left_alone",
            Self::Truncated { .. } => "truncated",
            Self::Mismatch => "mismatch",
            Self::BucketLayout { .. } => "layout",
            Self::Bucket { failure, .. } => failure.kind().as_str(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "enospc",
                io::ErrorKind::ReadOnlyFilesystem => "erofs",
                io::ErrorKind::PermissionDenied => "eacces",
                io::ErrorKind::NotFound => "enoent",
                _ => match source.raw_os_error() {
                    Some(5) => "eio",
                    Some(23 | 24) => "emfile",
                    _ => "other",
                },
            },
        }
    }

    /// Whether something was to be read, and nothing to be written.
    pub fn is_of_reading(&self) -> bool {
        matches!(self.operation(), "open" | "read" | "stat" | "verify" | "list" | "walk")
    }

    /// Whether the file that was read is to blame, and not the moment.
    pub fn is_of_this_file(&self) -> bool {
        matches!(self, Self::Truncated { .. }) || (self.is_of_reading() && self.kind() == "eio")
    }

    /// Whether the process has no descriptor left to open a file with.
    pub fn is_out_of_descriptors(&self) -> bool {
        self.kind() == "emfile"
    }

    /// Whether a file is not there, which is an answer rather than a failure.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why a store cannot be opened. These end the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("The store {path} is in use by another weir process: give each its own `store.path`")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A later release wrote it.
    #[error(
        "The store {path} has layout {found}, written by a later release; this one reads up to {known}: upgrade weir, or use another `store.path`"
    )]
    Layout {
        /// The directory.
        path: PathBuf,
        /// The layout on disk.
        found: String,
        /// The newest layout known.
        known: u32,
    },
    /// A release long before this one wrote it.
    #[error(
        "The store {path} has layout {found}, and this release reads {known} and the one before: start the release before this one over it once, or remove the directory, all of which can be fetched again"
    )]
    Outdated {
        /// The directory.
        path: PathBuf,
        /// The layout on disk.
        found: String,
        /// The newest layout known.
        known: u32,
    },
    /// A bucket that the configuration names cannot be used at all.
    #[error("The bucket {name} of `store.s3` cannot be used: {reason}")]
    Bucket {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The directory may not be used.
    #[error("Cannot {operation} {path}, the directory of `store.path`: {}", rights_wanted(.root))]
    Denied {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The directory of the store.
        root: PathBuf,
    },
    /// The directory cannot be prepared.
    #[error("Cannot {operation} {path}, the directory of `store.path`")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
