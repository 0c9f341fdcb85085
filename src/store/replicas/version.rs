//! The layout of a bucket: a release writes into one that it, or one before it, has laid out, and leaves alone one that a
//! later release has.
//!
//! Reading waits for nothing: what comes is verified by its digest, or is a record that reads as one or does not. Writing
//! waits until the layout is known.

use parking_lot::Mutex;

use crate::store::bucket::Bucket;
use crate::store::error::StoreError;
use crate::store::layout::BUCKET_LAYOUT_VERSION;

/// The most bytes of the record.
const MAX_RECORD_BYTES: u64 = 64;

/// What is known about the layout of a bucket.
#[derive(Debug, Default)]
pub(super) struct Version {
    state: Mutex<State>,
    /// Held while somebody looks, for the others to wait for what is found.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Known,
    /// A later release has laid it out, as it says.
    Later(String),
}

impl Version {
    /// Why the bucket is left alone, if it is.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        match &*self.state.lock() {
            State::Later(found) => Some(later(found)),
            State::Unknown | State::Known => None,
        }
    }

    /// Makes sure that the bucket may be written to.
    pub(super) async fn admit(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let _looking = self.looking.lock().await;
        let state = self.state.lock().clone();
        match state {
            State::Known => Ok(()),
            State::Later(found) => Err(later(&found)),
            State::Unknown => self.look(bucket).await,
        }
    }

    /// Looks again: another release may have come since.
    pub(super) async fn check(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let _looking = self.looking.lock().await;
        self.look(bucket).await
    }

    async fn look(&self, bucket: &Bucket) -> Result<(), StoreError> {
        let path = bucket.layout().version();
        let found = bucket.read_record(&path, MAX_RECORD_BYTES).await?;
        let state = judge(found.as_deref());
        if state == State::Unknown {
            // Nobody has written to it, or a release that did not say so: what it wrote is laid out as by this one.
            bucket.write_record(&path, format!("{BUCKET_LAYOUT_VERSION}\n").into()).await?;
            *self.state.lock() = State::Known;
            return Ok(());
        }
        let before = std::mem::replace(&mut *self.state.lock(), state.clone());
        let State::Later(found) = &state else {
            if matches!(before, State::Later(_)) {
                tracing::info!("The bucket has a layout that this release knows, and is used again");
            }
            return Ok(());
        };
        let error = later(found);
        if before != state {
            tracing::error!(%error, "The bucket is left alone; pulls go on without it");
        }
        bucket.refused(&error);
        Err(error)
    }
}

/// What the record says; `Unknown` if there is none.
fn judge(found: Option<&[u8]>) -> State {
    let Some(found) = found else { return State::Unknown };
    let text = String::from_utf8_lossy(found);
    let text = text.trim();
    match text.parse::<u32>() {
        Ok(version) if version <= BUCKET_LAYOUT_VERSION => State::Known,
        // What is no number is what a later release calls it.
        _ => State::Later(text.chars().filter(|character| !character.is_control()).collect()),
    }
}

fn later(found: &str) -> StoreError {
    StoreError::BucketLayout { found: found.to_owned(), known: BUCKET_LAYOUT_VERSION }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_knows_its_own_layout_and_those_before_and_no_later_one() {
        let own = format!("{BUCKET_LAYOUT_VERSION}\n");
        let next = (BUCKET_LAYOUT_VERSION + 1).to_string();
        for (found, expected) in [
            (None, State::Unknown),
            (Some("0\n"), State::Known),
            (Some(own.as_str()), State::Known),
            (Some(next.as_str()), State::Later(next.clone())),
            (Some("2-\u{7}beta\n"), State::Later("2-beta".to_owned())),
            (Some(""), State::Later(String::new())),
        ] {
            assert_eq!(judge(found.map(str::as_bytes)), expected, "{found:?}");
        }
    }

    #[test]
    fn who_meets_a_later_layout_is_told_what_to_do() {
        let text = later("7").to_string();
        assert!(text.contains("layout 7") && text.contains("upgrade weir"), "{text}");
    }
}
