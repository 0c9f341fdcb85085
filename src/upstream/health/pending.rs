//! A question that was let through, until it is known what came of it.

use std::fmt;
use std::sync::Arc;

use super::breaker::Admission;
use super::{Evidence, Health, Part, TimeGiven};
use crate::upstream::error::UpstreamError;

/// The leave to ask one part of an upstream. Dropped without a word (the client left, the disk is full) it says nothing
/// about the upstream.
#[must_use]
pub(crate) struct Pending {
    health: Arc<Health>,
    part: Part,
    admission: Admission,
    is_settled: bool,
}

impl Pending {
    pub(super) const fn new(health: Arc<Health>, part: Part, admission: Admission) -> Self {
        Self { health, part, admission, is_settled: false }
    }

    /// What stands for it where it cannot be held.
    pub(crate) const fn admission(&self) -> Admission {
        self.admission
    }

    /// What came of it.
    pub(crate) fn settle(mut self, evidence: Evidence, why: Option<&str>) {
        self.is_settled = true;
        self.health.settle(self.part, self.admission, evidence, why);
    }

    /// What came of it, if there was time enough to tell.
    pub(crate) fn ended<T>(self, result: &Result<T, UpstreamError>) {
        match result {
            Ok(_) => self.settle(Evidence::Works, None),
            Err(error) => self.settle(Evidence::of(error, TimeGiven::Enough), Some(&error.message)),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_settled {
            self.health.settle(self.part, self.admission, Evidence::Nothing, None);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("part", &self.part).field("admission", &self.admission).finish_non_exhaustive()
    }
}
