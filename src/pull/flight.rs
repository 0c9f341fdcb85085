//! One fetch per blob, however many clients ask: the first becomes the leader, the others follow.
//!
//! The type tells who has to do the work. A [`Permit`] is the right, and the duty, to fetch a digest: dropped without a
//! result (a panic, a shutdown) it fails the flight, so that no follower ever waits for somebody who is gone. The end
//! of a flight is a state of its [`Progress`], never a closed channel.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Scope;
use super::ahead::AT_ONCE;
use super::error::FillError;
use super::outcome::Source;
use super::relief::Relief;
use crate::oci::Digest;
use crate::store::BlobFile;
use crate::upstream::Purpose;

/// How far a fetch has come.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    /// No upstream has begun to answer.
    Opening,
    /// So many bytes may be read. Less than what has arrived: the tail is held back until the digest matches.
    Growing(u64),
    /// All of it, so many bytes, and the digest matches.
    Complete(u64),
    /// It ended before it was complete.
    Failed(FillError),
}

/// What is known once an upstream begins to answer.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The size of the blob, if anybody told.
    pub(super) size: Option<u64>,
    /// Which upstream sends it; `None` if none does.
    pub(super) upstream: Option<Arc<str>>,
    /// Where its bytes come from: an upstream, the bucket, or what an interrupted download left.
    pub(super) source: Source,
    /// Where its bytes can be read as they arrive.
    pub(super) file: BlobFile,
}

/// A fetch in progress, as its followers see it.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    /// Whose upstreams are asked.
    on_behalf_of: Arc<Scope>,
    /// Who waited for it when it began.
    purpose: Purpose,
    progress: watch::Receiver<Progress>,
    opened: Arc<OnceLock<Opened>>,
    /// Places for ranges that are fetched ahead of this fetch.
    ahead: Arc<Semaphore>,
    /// What those offer who follow on behalf of others.
    relief: Relief,
    /// Why what was fetched could not be stored in the end.
    unkept: Arc<OnceLock<FillError>>,
}

impl Follower {
    /// Whether what the upstreams say to this flight is said to a client of `scope`. What is refused to work in the
    /// background a client may get.
    pub(super) fn is_on_behalf_of(&self, scope: &Scope) -> bool {
        self.purpose != Purpose::Background && *self.on_behalf_of == *scope
    }

    /// Waits until the flight is over, and what it has fetched is stored or will never be: then it has failed, although all
    /// of it could be read.
    pub(super) async fn landed(mut self) -> Progress {
        // The permit goes last, and with it what could say more.
        while self.progress.changed().await.is_ok() {}
        let progress = self.progress.borrow().clone();
        match (progress, self.unkept.get()) {
            (Progress::Complete(_), Some(error)) => Progress::Failed(error.clone()),
            (progress, _) => progress,
        }
    }

    /// Where those who follow on behalf of others offer to go on.
    pub(super) const fn relief(&self) -> &Relief {
        &self.relief
    }

    /// Waits until an upstream begins to answer.
    pub(super) async fn opened(&mut self) -> Result<Opened, FillError> {
        let progress = self.wait_for(|progress| !matches!(progress, Progress::Opening)).await;
        match (progress, self.opened.get()) {
            (Progress::Failed(error), _) => Err(error),
            (_, Some(opened)) => Ok(opened.clone()),
            // The permit states what was opened before it says that anything was.
            (_, None) => Err(FillError::Abandoned),
        }
    }

    /// How far the fetch has come, while it goes on.
    pub(super) fn frontier(&self) -> Option<u64> {
        match *self.progress.borrow() {
            Progress::Growing(frontier) => Some(frontier),
            Progress::Opening | Progress::Complete(_) | Progress::Failed(_) => None,
        }
    }

    /// A place for a range that is fetched ahead, if one is free.
    pub(super) fn place_ahead(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ahead).try_acquire_owned().ok()
    }

    /// There are no more places: the upstreams send this blob in one piece only.
    pub(super) fn close_ahead(&self) {
        self.ahead.close();
    }

    /// Waits until a byte past `position` may be read, or the end.
    pub(super) async fn past(&mut self, position: u64) -> Progress {
        self.wait_for(|progress| match progress {
            Progress::Opening => false,
            Progress::Growing(frontier) => *frontier > position,
            Progress::Complete(_) | Progress::Failed(_) => true,
        })
        .await
    }

    async fn wait_for(&mut self, condition: impl FnMut(&Progress) -> bool) -> Progress {
        let reached = self.progress.wait_for(condition).await;
        reached.map_or(Progress::Failed(FillError::Abandoned), |progress| progress.clone())
    }
}

/// Who fetches.
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody did: the caller has to, and can follow its own flight.
    Leader(Permit, Follower),
    /// Somebody does.
    Follower(Follower),
}

/// The fetches in progress, by digest.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    flights: Arc<Mutex<HashMap<Digest, Follower>>>,
}

impl Flights {
    /// Joins the flight of `digest`, or starts it on behalf of a client of `scope`.
    pub(super) fn enter(&self, digest: &Digest, scope: &Scope) -> Entry {
        self.enter_for(digest, scope, Purpose::Miss)
    }

    /// The same on behalf of whoever waits for it.
    pub(super) fn enter_for(&self, digest: &Digest, scope: &Scope, purpose: Purpose) -> Entry {
        let mut flights = self.flights.lock();
        if let Some(follower) = flights.get(digest) {
            return Entry::Follower(follower.clone());
        }
        let (progress, follower) = begin(Arc::new(scope.clone()), purpose, Relief::default());
        flights.insert(*digest, follower.clone());
        let permit = Permit { flights: self.clone(), digest: *digest, progress, follower: follower.clone() };
        Entry::Leader(permit, follower)
    }

    /// The flight of `digest`, if there is one.
    pub(super) fn get(&self, digest: &Digest) -> Option<Follower> {
        self.flights.lock().get(digest).cloned()
    }
}

fn begin(on_behalf_of: Arc<Scope>, purpose: Purpose, relief: Relief) -> (watch::Sender<Progress>, Follower) {
    let (progress, watcher) = watch::channel(Progress::Opening);
    let (opened, unkept, ahead) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(AT_ONCE)));
    (progress, Follower { on_behalf_of, purpose, progress: watcher, opened, ahead, relief, unkept })
}

/// The duty to fetch one digest. The flight can be joined as long as the permit lives.
pub(super) struct Permit {
    flights: Flights,
    digest: Digest,
    progress: watch::Sender<Progress>,
    /// The flight, as it is on the list.
    follower: Follower,
}

impl Permit {
    /// What followers offer to go on with.
    pub(super) fn relief(&self) -> Relief {
        self.follower.relief.clone()
    }

    /// An upstream begins to answer.
    pub(super) fn open(&self, opened: Opened) {
        // There is one leader, and it opens once.
        let _ = self.follower.opened.set(opened);
        self.progress.send_replace(Progress::Growing(0));
    }

    /// Bytes up to `frontier` may be read.
    pub(super) fn advance(&self, frontier: u64) {
        self.progress.send_replace(Progress::Growing(frontier));
    }

    /// All `size` bytes may be read: they are the right ones.
    pub(super) fn complete(&self, size: u64) {
        self.progress.send_replace(Progress::Complete(size));
    }

    /// What was complete could not be stored. It can be read all the same, by those who read it now.
    pub(super) fn not_kept(&self, error: FillError) {
        // There is one leader, and it stores once.
        let _ = self.follower.unkept.set(error);
    }

    /// The fetch begins anew: this flight fails with `error`, and another one stands in its place before anybody hears
    /// of it. Who asks again follows that one.
    pub(super) fn begin_anew(&mut self, error: FillError) {
        let Follower { on_behalf_of, purpose, relief, .. } = &self.follower;
        let (progress, follower) = begin(Arc::clone(on_behalf_of), *purpose, relief.clone());
        self.flights.flights.lock().insert(self.digest, follower.clone());
        self.follower = follower;
        let failed = std::mem::replace(&mut self.progress, progress);
        failed.send_replace(Progress::Failed(error));
    }

    /// The fetch ends here. The flight is over before anybody hears of it: who asks again then starts a new one.
    pub(super) fn fail(self, error: FillError) {
        self.leave();
        self.progress.send_replace(Progress::Failed(error));
    }

    /// Takes the flight, and no later one of the same digest, off the list.
    fn leave(&self) {
        let mut flights = self.flights.flights.lock();
        if flights.get(&self.digest).is_some_and(|flight| Arc::ptr_eq(&flight.opened, &self.follower.opened)) {
            flights.remove(&self.digest);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.leave();
        self.progress.send_if_modified(|progress| {
            let unfinished = matches!(progress, Progress::Opening | Progress::Growing(_));
            if unfinished {
                *progress = Progress::Failed(FillError::Abandoned);
            }
            unfinished
        });
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            registry: "reg.test".parse().unwrap(),
            repository: "team/app".parse().unwrap(),
            generation: crate::upstream::Generation::FIRST,
        }
    }

    fn leader(flights: &Flights, digest: &Digest) -> (Permit, Follower) {
        match flights.enter(digest, &scope()) {
            Entry::Leader(permit, follower) => (permit, follower),
            Entry::Follower(_) => panic!("somebody else leads"),
        }
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_follow() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let (permit, _) = leader(&flights, &digest);
        let Entry::Follower(mut follower) = flights.enter(&digest, &scope()) else { panic!("two leaders") };
        permit.advance(7);
        assert!(matches!(follower.past(6).await, Progress::Growing(7)));
        permit.complete(9);
        assert!(matches!(follower.past(7).await, Progress::Complete(9)));
        drop(permit);
        assert!(flights.get(&digest).is_none());
    }

    #[tokio::test]
    async fn a_leader_that_vanishes_wakes_its_followers() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let (permit, mut follower) = leader(&flights, &digest);
        let waiting = tokio::spawn(async move { follower.opened().await.map(|_| ()) });
        tokio::task::yield_now().await;
        drop(permit);
        assert!(matches!(waiting.await.unwrap(), Err(FillError::Abandoned)));
        let (_permit, _) = leader(&flights, &digest);
    }

    #[tokio::test]
    async fn who_hears_of_a_failure_can_start_anew() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let (permit, mut follower) = leader(&flights, &digest);
        permit.fail(FillError::TooLong(std::time::Duration::ZERO));
        assert!(matches!(follower.opened().await, Err(FillError::TooLong(_))));
        let (_second, _) = leader(&flights, &digest);
    }

    #[tokio::test]
    async fn who_hears_of_a_new_beginning_finds_it() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let (mut permit, mut first) = leader(&flights, &digest);
        permit.advance(5);
        permit.begin_anew(FillError::Anew(digest));
        assert!(matches!(first.past(0).await, Progress::Failed(FillError::Anew(_))));
        let Entry::Follower(mut second) = flights.enter(&digest, &scope()) else { panic!("two leaders") };
        assert_eq!(second.frontier(), None, "it has no bytes of the first");
        permit.complete(9);
        assert!(matches!(second.past(0).await, Progress::Complete(9)));
        drop(permit);
        assert!(flights.get(&digest).is_none());
        assert!(matches!(first.past(0).await, Progress::Failed(_)));
    }

    #[tokio::test]
    async fn what_is_refused_to_the_background_is_not_refused_to_its_clients() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let Entry::Leader(permit, first) = flights.enter_for(&digest, &scope(), Purpose::Background) else {
            panic!("nobody else has entered")
        };
        let Entry::Follower(client) = flights.enter(&digest, &scope()) else { panic!("two leaders") };
        assert!(!client.is_on_behalf_of(&scope()), "the client asks for itself");
        permit.fail(FillError::Digest(digest));
        assert!(matches!(first.landed().await, Progress::Failed(FillError::Digest(_))));
        let Entry::Leader(permit, own) = flights.enter(&digest, &scope()) else { panic!("the first has ended") };
        assert!(own.is_on_behalf_of(&scope()));
        permit.complete(1);
        drop(permit);
        assert!(matches!(own.landed().await, Progress::Complete(1)), "it lands when its permit is gone");
    }

    #[tokio::test]
    async fn the_end_of_a_flight_outlives_it() {
        let (flights, digest) = (Flights::default(), Digest::of(b"x"));
        let (permit, mut follower) = leader(&flights, &digest);
        permit.complete(3);
        drop(permit);
        assert!(matches!(follower.past(0).await, Progress::Complete(3)));
    }
}
