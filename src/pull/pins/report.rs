//! Pins as people see them: in answers of the API, in metrics and in readiness.

use crate::oci::{Digest, ImageRef};
use crate::pull::collect::Amount;
use crate::store::{PinName, PinRecord};

/// How a pinned image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinState {
    /// Nobody has looked yet.
    Waiting,
    /// What is missing is being fetched.
    Fetching,
    /// All of it is here.
    Whole,
    /// There is no room for it.
    NotKept(String),
    /// Something of it cannot be fetched now; it is tried again.
    Failed(String),
}

impl PinState {
    /// The word in the API and in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Whole => "whole",
            Self::NotKept(_) => "not_kept",
            Self::Failed(_) => "failed",
        }
    }

    /// All words.
    pub const WORDS: [&'static str; 5] = ["waiting", "fetching", "whole", "not_kept", "failed"];

    /// Why it is not whole, if that is known.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotKept(reason) | Self::Failed(reason) => Some(reason),
            Self::Waiting | Self::Fetching | Self::Whole => None,
        }
    }

    /// Whether a look has come to an end.
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Whole | Self::NotKept(_) | Self::Failed(_))
    }
}

/// A pin as people see it.
#[derive(Debug, Clone)]
pub struct PinReport {
    /// Its name.
    pub name: PinName,
    /// What was asked for.
    pub record: PinRecord,
    /// How its images are, in the order of the record.
    pub images: Vec<ImageReport>,
}

/// A pinned image as people see it.
#[derive(Debug, Clone)]
pub struct ImageReport {
    /// The image.
    pub image: ImageRef,
    /// How it is.
    pub state: PinState,
    /// What it meant when all of it was last here. That is kept, whatever the state says of what is to take its place.
    pub kept: Option<Digest>,
    /// How much of it is here.
    pub amount: Amount,
    /// What there is to say besides.
    pub note: Option<String>,
}
