//! One blob out of as many transfers as it takes.
//!
//! A [`Relay`] gives the bytes of a blob in order, each once. When an upstream breaks off, stalls or crawls, the next
//! one goes on behind the last byte; `continuation` says which. It knows nothing of where the bytes go: whoever takes
//! them hashes them all with one hasher, and proves by that hash what a second transfer repeats. Its one promise: a
//! body ends well only where an upstream said that it ends, or where all that was announced has come.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::continuation::{Course, Step, What};
use super::errand::{Declined, Errand, Floor, Skip};
use super::error::{FillError, Prefix};
use super::outcome::Source;
use super::pace::{Pace, TooSlow};
use super::relief::Relief;
use super::sender::{BUCKET, Sender};
use crate::upstream::{Attempts, Break, BrokenBody, Verdict};

/// How long the first byte behind a head may take while somebody else could be asked.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// How often a blob is gone on with on behalf of somebody else.
const MOST_RELIEFS: usize = 8;

/// A blob on its way, by whichever upstreams.
#[derive(Debug)]
pub(super) struct Relay {
    /// On whose behalf it is asked for now.
    errand: Errand,
    /// On whose behalf it was before.
    earlier: Vec<Errand>,
    /// On whose behalf it could be.
    relief: Relief,
    /// The size of the whole blob, if anybody told.
    size: Option<u64>,
    /// Who sends now; `None` once nothing is missing.
    body: Option<Sender>,
    /// Nothing of the body has come, and nobody has been asked in its place.
    is_new: bool,
    /// What came in one piece with the end of what was skipped.
    carried: Option<Bytes>,
    course: Course,
    pace: Pace,
    /// The body has become too slow to be waited for.
    too_slow: Option<TooSlow>,
    /// Who has sent bytes of it.
    contributors: Vec<Arc<str>>,
    /// Nobody but this one is asked.
    only: Option<Arc<str>>,
}

impl Relay {
    /// Opens the blob from its first byte.
    pub(super) async fn open(errand: Errand) -> Result<Self, Attempts> {
        let body = match errand.in_bucket(0, None).await {
            Some(body) => body,
            None => errand.open(None, &[]).await?,
        };
        Ok(Self::over(errand, None, Some(body)))
    }

    /// Opens the blob from its first byte at one upstream, which is none of `avoid`. If it breaks off, nobody else goes
    /// on.
    pub(super) async fn open_at_one(errand: Errand, avoid: &[Arc<str>]) -> Result<Self, Attempts> {
        let body = errand.open(None, avoid).await?;
        let only = Some(Arc::clone(body.name()));
        Ok(Self { only, ..Self::over(errand, None, Some(body)) })
    }

    /// Opens the blob, of this size if anybody told, behind its first `offset` bytes. See [`Relay::align`].
    pub(super) async fn open_behind(errand: Errand, offset: u64, size: Option<u64>) -> Result<Self, Attempts> {
        if size == Some(offset) {
            return Ok(Self::over(errand, size, None));
        }
        let body = match errand.in_bucket(offset, size).await {
            Some(body) => body,
            None => errand.open_rest(offset, size, &[]).await?,
        };
        Ok(Self::over(errand, size, Some(body)))
    }

    fn over(errand: Errand, size: Option<u64>, body: Option<Sender>) -> Self {
        let size = size.or(body.as_ref().and_then(Sender::size)).or(errand.expected);
        Self {
            errand,
            earlier: Vec::new(),
            relief: Relief::default(),
            size,
            body,
            is_new: true,
            carried: None,
            course: Course::default(),
            pace: Pace::default(),
            too_slow: None,
            contributors: Vec::new(),
            only: None,
        }
    }

    /// The same, which goes on at the upstreams of others if its own do not.
    pub(super) fn relieved_by(self, relief: Relief) -> Self {
        Self { relief, ..self }
    }

    /// The size of the whole blob, if anybody told.
    pub(super) const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Which upstream sends now; `None` if nothing is missing, or the bucket sends.
    pub(super) fn upstream(&self) -> Option<&Arc<str>> {
        self.body.as_ref().and_then(Sender::upstream)
    }

    /// Where the bytes come from now.
    pub(super) fn source(&self) -> Source {
        match &self.body {
            Some(Sender::Upstream(_)) => Source::Upstream,
            Some(Sender::Bucket { .. }) => Source::S3,
            None => Source::Disk,
        }
    }

    /// Whether the bucket has sent all that has come, and sends what comes next.
    pub(super) fn is_from_bucket(&self) -> bool {
        let senders = self.body.as_ref().map(Sender::name).into_iter().chain(&self.contributors);
        senders.into_iter().all(|name| **name == *BUCKET)
    }

    /// Who has sent bytes of it, in the order in which they began.
    pub(super) fn contributors(&self) -> &[Arc<str>] {
        &self.contributors
    }

    /// On whose behalf it has been asked for, each once.
    pub(super) fn errands(&self) -> Vec<Errand> {
        let mut errands: Vec<Errand> = Vec::new();
        for errand in self.earlier.iter().chain([&self.errand]) {
            if !errands.iter().any(|known| known.asks_like(errand)) {
                errands.push(errand.clone());
            }
        }
        errands
    }

    /// The bytes are wrong between them all. Where they came on behalf of several repositories nobody is to blame yet:
    /// the upstreams of one must not pay for what those of another have sent, so each is asked for the whole first.
    pub(super) fn blame(&self) {
        if self.earlier.is_empty() {
            self.errand.blame(&self.contributors);
        }
    }

    /// What was asked for.
    pub(super) const fn errand(&self) -> &Errand {
        &self.errand
    }

    /// The next bytes, `None` at the end. After a break, [`Relay::go_on`].
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BrokenBody> {
        let others = self.is_new && self.has_others();
        let Some(body) = &mut self.body else { return Ok(None) };
        if let Some(too_slow) = self.too_slow.take() {
            return Err(body.broken(Break::Slow, too_slow.to_string()));
        }
        let bytes = if let Some(carried) = self.carried.take() {
            carried
        } else {
            let since = Instant::now();
            let chunk = if others {
                timeout(FIRST_BYTE, body.chunk()).await.unwrap_or_else(|_| {
                    self.is_new = false;
                    Err(body.broken(Break::Slow, format!("Sent no byte for {} s", FIRST_BYTE.as_secs())))
                })
            } else {
                body.chunk().await
            };
            let bytes = match chunk {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(None),
                Err(broken) => {
                    // What came in one piece with what is too much is not handed out, and was sent all the same.
                    if broken.cause == Break::Overlong {
                        self.contributed(&broken.upstream);
                    }
                    return Err(broken);
                }
            };
            self.is_new = false;
            self.too_slow = self.pace.received(bytes.len() as u64, since.elapsed());
            bytes
        };
        let upstream = Arc::clone(body.name());
        self.too_slow = self.too_slow.filter(|_| self.has_others());
        self.contributed(&upstream);
        Ok(Some(bytes))
    }

    fn contributed(&mut self, upstream: &Arc<str>) {
        if !self.contributors.contains(upstream) {
            self.contributors.push(Arc::clone(upstream));
        }
    }

    /// Skips what the first body repeats of the bytes before it, if that is the same as `prefix`.
    pub(super) async fn align(&mut self, prefix: Prefix) -> Result<(), FillError> {
        let floor = if self.has_others() { Floor::Kept } else { Floor::Waived };
        let Some(body) = self.body.as_ref().filter(|body| body.overlap() > 0) else { return Ok(()) };
        let upstream = Arc::clone(body.name());
        let mut skip = Skip::of(prefix, floor);
        while let Some(body) = self.body.as_mut().filter(|body| *body.name() == upstream) {
            match skip.through(body).await {
                Ok(carried) => {
                    self.carried = carried;
                    break;
                }
                // Nobody is faster, or that one is not at the beginning of what it repeats.
                Err(slow) if slow.cause == Break::Slow => self.hurry(&slow, prefix).await,
                Err(broken) => return self.go_on(broken, prefix).await,
            }
        }
        Ok(())
    }

    /// Goes on behind `prefix`, which is all that came before the break.
    ///
    /// # Errors
    /// The break, if there is no going on. [`FillError::is_of_wrong_bytes`] then tells whether the prefix is of any
    /// use.
    pub(super) async fn go_on(&mut self, broken: BrokenBody, prefix: Prefix) -> Result<(), FillError> {
        match broken.cause {
            Break::Slow => {
                self.hurry(&broken, prefix).await;
                return Ok(());
            }
            Break::Overlong => return Err(FillError::Transfer(broken)),
            Break::Reset | Break::Truncated | Break::Stalled | Break::Different => self.body = None,
        }
        // Only the end of the transfer was missing, not one of its bytes.
        if self.size == Some(prefix.length) || prefix.digest == *self.errand.digest() {
            return Ok(());
        }
        self.course.broke(&broken.upstream, prefix.length);
        let mut last = broken.clone();
        loop {
            let step = self.course.next(&self.candidates(), jitter());
            let has_more = matches!(&step, Step::Ask { wait, .. } if wait.is_zero());
            if !has_more && self.relieve(&broken, prefix).await {
                return Ok(());
            }
            let Step::Ask { among, what, wait } = step else { return Err(FillError::Transfer(last)) };
            if !wait.is_zero() {
                sleep(wait).await;
            }
            let floor = if self.candidates().len() > 1 { Floor::Kept } else { Floor::Waived };
            match self.errand.ask(&among, what, prefix, self.size, floor).await {
                Ok((body, carried)) => {
                    self.switch(body, carried, &broken, prefix);
                    return Ok(());
                }
                Err(Declined::Asked(attempts)) => self.note(&among, what, &attempts),
                Err(Declined::Sent(other)) => {
                    warn!(registry = %self.errand.registry, digest = %self.errand.digest(), upstream = %other.upstream,
                        byte = prefix.length, reason = other.cause.as_str(), error = %other,
                        "An upstream does not go on with a blob");
                    self.course.refused(&other.upstream);
                    // Two say different things, so what has come may be wrong.
                    if other.cause == Break::Different {
                        last = other;
                    }
                }
            }
        }
    }

    /// Looks for somebody faster; as long as there is none, the slow one is better than nobody.
    async fn hurry(&mut self, slow: &BrokenBody, prefix: Prefix) {
        self.pace = Pace::default();
        let mut others = self.candidates();
        others.retain(|name| *name != slow.upstream);
        match self.errand.ask(&others, What::Rest, prefix, self.size, Floor::Kept).await {
            Ok((body, carried)) => {
                self.course.broke(&slow.upstream, prefix.length);
                self.switch(body, carried, slow, prefix);
            }
            Err(_) if self.relieve(slow, prefix).await => {}
            Err(declined) => {
                let (registry, digest) = (&self.errand.registry, self.errand.digest());
                debug!(%registry, %digest, upstream = %slow.upstream, error = %slow, %declined, "Nobody is faster");
            }
        }
    }

    /// Goes on at the upstreams of somebody who follows. Returns whether one of them does.
    async fn relieve(&mut self, broken: &BrokenBody, prefix: Prefix) -> bool {
        for errand in self.reliefs() {
            let mut senders = errand.senders();
            // The same one, by way of another repository, would be no better.
            senders.retain(|name| errand.registry != self.errand.registry || *name != broken.upstream);
            match errand.ask(&senders, What::Rest, prefix, self.size, Floor::Kept).await {
                Ok((body, carried)) => {
                    let before = std::mem::replace(&mut self.errand, errand);
                    self.relief.offer(before.clone());
                    self.earlier.push(before);
                    self.switch(body, carried, broken, prefix);
                    return true;
                }
                Err(declined) => {
                    let (registry, digest) = (&errand.registry, self.errand.digest());
                    debug!(%registry, %digest, %declined, "Those who follow have nobody to go on with a blob");
                }
            }
        }
        false
    }

    /// On whose behalf it could go on.
    fn reliefs(&self) -> Vec<Errand> {
        let is_settled = self.only.is_some() || self.earlier.len() == MOST_RELIEFS;
        if is_settled { Vec::new() } else { self.relief.besides(&self.errand) }
    }

    fn switch(&mut self, body: Sender, carried: Option<Bytes>, broken: &BrokenBody, prefix: Prefix) {
        let (from, to, reason) = (&broken.upstream, body.name(), broken.cause.as_str());
        let Errand { registry, upstreams, request, metrics, .. } = &self.errand;
        warn!(%registry, repository = %request.repository, digest = %request.digest, %from, %to, byte = prefix.length,
            reason, error = %broken, "Went on with a blob in the middle");
        let [registry, upstream] = upstreams.labels_of(to);
        metrics.upstream.resumes.with_label_values(&[registry, upstream, reason]).inc();
        self.size = self.size.or(body.size());
        self.pace = Pace::default();
        self.is_new = true;
        self.carried = carried;
        // One that had ended by itself has said so; a slow one has not, and was waited for as well.
        if let Some(left) = self.body.replace(body) {
            left.give_up(broken);
        }
    }

    /// What came of asking `among`.
    fn note(&mut self, among: &[Arc<str>], what: What, attempts: &Attempts) {
        debug!(registry = %self.errand.registry, digest = %self.errand.digest(), %attempts, "Nobody goes on with a blob");
        for name in among {
            let said = attempts.0.iter().find(|attempt| attempt.upstream == *name);
            if what == What::Rest && said.is_some_and(|attempt| attempt.error.verdict == Verdict::WrongPart) {
                self.course.refused_part(name);
            } else {
                self.course.refused(name);
            }
        }
    }

    /// Whether anybody could be asked but who sends now.
    fn has_others(&self) -> bool {
        self.candidates().iter().any(|name| Some(name) != self.upstream()) || !self.reliefs().is_empty()
    }

    fn candidates(&self) -> Vec<Arc<str>> {
        let mut candidates = self.errand.senders();
        if let Some(only) = &self.only {
            candidates.retain(|name| name == only);
        }
        candidates
    }
}

/// A number from 0 to 1, to spread what would otherwise happen everywhere at once.
fn jitter() -> f64 {
    f64::from(u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
