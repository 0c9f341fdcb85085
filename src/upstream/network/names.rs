//! What names meant when they were last found out, for a while.
//!
//! Name servers fail more often than registries move. So an answer is used again for a few seconds, which spares the
//! name server a herd of connections, and for ten minutes when no newer one can be had. There is one question per name
//! under way, which runs to its end whoever waits: the system's resolution blocks a thread and cannot be called back.
//!
//! Nothing here is a judgement about addresses: whoever dials them looks at them, old or new (`resolver`).

use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::lookup::Lookup;

/// How long an answer is used without asking again.
const FRESH: Duration = Duration::from_secs(10);
/// How old an answer may be that stands in for one that cannot be had.
const STALE: Duration = Duration::from_secs(10 * 60);
/// How long a failed question is not repeated where an old answer stands in.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer is waited for: with an old one at hand, and without.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// Names that are remembered. Stores behind redirects have many, so the least recently used are forgotten.
const MAX_NAMES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The addresses of a name; never none.
pub(crate) type Addresses = Arc<[IpAddr]>;

/// Why a name has no addresses.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NameError {
    /// The resolution says so.
    #[error("{0}")]
    Failed(Arc<io::Error>),
    /// It exists, and has no address.
    #[error("it has no address")]
    Empty,
    /// Whoever asked for it is gone.
    #[error("the question was lost")]
    Lost,
    /// It takes too long.
    #[error("no answer of the name server within {} s", PATIENCE.1.as_secs())]
    Late,
}

/// The names. Cloning shares what is known of them.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    lookup: Arc<dyn Lookup>,
    /// Guarded for the time of a look.
    known: Arc<Mutex<LruCache<Box<str>, Known>>>,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    answer: Option<Answer>,
    /// When the last question failed, if it was asked behind the answer.
    failed: Option<Instant>,
    /// Whether the answer led nowhere.
    doubted: bool,
    pending: Option<Pending>,
}

#[derive(Debug, Clone)]
struct Answer {
    addresses: Addresses,
    at: Instant,
}

/// A question under way, which any number may wait for.
type Pending = Shared<BoxFuture<'static, Result<Addresses, NameError>>>;

/// A question that others may wait for. Given up without an answer, it has failed: else nobody would ask again.
struct Question {
    names: Names,
    name: Box<str>,
    /// To those who wait; until it is answered.
    answer: Option<oneshot::Sender<Result<Addresses, NameError>>>,
}

impl Question {
    fn new(names: Names, name: &str) -> (Pending, Self) {
        let (answer, answered) = oneshot::channel();
        let pending = answered.map(|answered| answered.unwrap_or(Err(NameError::Lost))).boxed().shared();
        (pending, Self { names, name: name.into(), answer: Some(answer) })
    }

    async fn ask(mut self) {
        let outcome = match self.names.lookup.lookup(&self.name).await {
            Ok(found) if found.is_empty() => Err(NameError::Empty),
            Ok(found) => Ok(Addresses::from(found)),
            Err(error) => Err(NameError::Failed(Arc::new(error))),
        };
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<Addresses, NameError>) {
        if let Some(answer) = self.answer.take() {
            self.names.learn(&self.name, &outcome);
            // It counts for the next ones if nobody waits any longer.
            drop(answer.send(outcome));
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.end(Err(NameError::Lost));
    }
}

/// What to do about a name.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Use these.
    Use(Addresses),
    /// Ask, and use these if that fails.
    Ask { otherwise: Option<Addresses> },
}

impl Known {
    fn step(&self, now: Instant) -> Step {
        let age = |at: Instant| now.saturating_duration_since(at);
        let Some(answer) = self.answer.as_ref().filter(|answer| age(answer.at) < STALE) else {
            return Step::Ask { otherwise: None };
        };
        let is_fresh = age(answer.at) < FRESH && !self.doubted;
        if is_fresh || self.failed.is_some_and(|failed| age(failed) < PAUSE) {
            return Step::Use(Arc::clone(&answer.addresses));
        }
        Step::Ask { otherwise: Some(Arc::clone(&answer.addresses)) }
    }
}

impl Names {
    /// Nothing is known yet; `lookup` is asked.
    pub(crate) fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, known: Arc::new(Mutex::new(LruCache::new(MAX_NAMES))) }
    }

    /// The addresses of `name`.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Addresses, NameError> {
        let (pending, question, otherwise) = {
            let mut names = self.known.lock();
            let known = names.get_or_insert_mut(name.into(), Known::default);
            match (known.step(Instant::now()), &known.pending) {
                (Step::Use(addresses), _) => return Ok(addresses),
                (Step::Ask { otherwise }, Some(pending)) => (pending.clone(), None, otherwise),
                (Step::Ask { otherwise }, None) => {
                    let (pending, question) = Question::new(self.clone(), name);
                    known.pending = Some(pending.clone());
                    (pending, Some(question), otherwise)
                }
            }
        };
        // In a task that nobody has to wait for, and not under the guard: what cannot be begun any more ends here.
        question.map(|question| tokio::spawn(question.ask()));
        let patience = if otherwise.is_some() { PATIENCE.0 } else { PATIENCE.1 };
        let error = match timeout(patience, pending).await {
            Ok(Ok(addresses)) => return Ok(addresses),
            Ok(Err(error)) => error,
            Err(_) => NameError::Late,
        };
        let addresses = otherwise.ok_or_else(|| error.clone())?;
        self.stands_in(name, &error);
        Ok(addresses)
    }

    /// The addresses of `name` led nowhere: it is asked for again before they are used again.
    pub(crate) fn doubt(&self, name: &str) {
        if let Some(known) = self.known.lock().peek_mut(name) {
            known.doubted = true;
        }
    }

    fn learn(&self, name: &str, outcome: &Result<Addresses, NameError>) {
        let now = Instant::now();
        let mut names = self.known.lock();
        let known = names.get_or_insert_mut(name.into(), Known::default);
        known.pending = None;
        match outcome {
            Ok(addresses) => {
                known.answer = Some(Answer { addresses: Arc::clone(addresses), at: now });
                known.doubted = false;
                if known.failed.take().is_some() {
                    info!(name, "Name is resolved again");
                }
            }
            Err(_) if known.answer.as_ref().is_none_or(|answer| now - answer.at >= STALE) => {
                names.pop(name);
            }
            Err(_) => {}
        }
    }

    /// Notes that an old answer is used for `name`; says so when it begins.
    fn stands_in(&self, name: &str, error: &NameError) {
        let before = self.known.lock().peek_mut(name).map(|known| known.failed.replace(Instant::now()));
        if before == Some(None) {
            warn!(name, %error, "Name cannot be resolved; its last addresses are used for up to ten minutes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::tests::names::{Says, Script};

    const PUBLIC: &str = "93.184.216.34";
    const OTHER: &str = "93.184.216.35";

    async fn ask(names: &Names) -> Result<String, String> {
        let found = names.addresses("r.test").await;
        found.map(|found| found[0].to_string()).map_err(|error| error.to_string())
    }

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[test]
    fn an_answer_is_fresh_then_asked_behind_then_forgotten() {
        let now = Instant::now();
        let addresses: Addresses = [PUBLIC.parse().unwrap()].into();
        let known = |failed: Option<u64>, doubted| Known {
            answer: Some(Answer { addresses: Arc::clone(&addresses), at: now }),
            failed: failed.map(|seconds| now + Duration::from_secs(seconds)),
            doubted,
            pending: None,
        };
        let reuse = || Step::Use(Arc::clone(&addresses));
        let behind = || Step::Ask { otherwise: Some(Arc::clone(&addresses)) };
        for (known, age, step) in [
            (known(None, false), 0, reuse()),
            (known(None, false), 9, reuse()),
            (known(None, true), 1, behind()),
            (known(None, false), 10, behind()),
            (known(Some(20), false), 24, reuse()),
            (known(Some(20), true), 24, reuse()),
            (known(Some(20), false), 25, behind()),
            (known(None, false), 599, behind()),
            (known(Some(599), false), 600, Step::Ask { otherwise: None }),
            (Known::default(), 0, Step::Ask { otherwise: None }),
        ] {
            assert_eq!(known.step(now + Duration::from_secs(age)), step, "{age}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_stands_in_for_ten_minutes_while_nothing_can_be_resolved() {
        let script = Script::of([("r.test", Says::addresses([PUBLIC]))]);
        let names = Names::new(Arc::<Script>::clone(&script));
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        script.say("r.test", Says::Fails);
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        assert_eq!(script.asked("r.test"), 1, "fresh");
        after(11).await;
        for _ in 0..50 {
            assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        }
        assert_eq!(script.asked("r.test"), 2, "the failure is remembered for a while");
        script.say("r.test", Says::Hangs);
        after(6).await;
        let begun = Instant::now();
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        assert_eq!(begun.elapsed(), PATIENCE.0, "what hangs does not hold up who has an answer");
        after(600).await;
        let error = ask(&names).await.unwrap_err();
        assert_eq!(error, "no answer of the name server within 4 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_moved_is_found_where_it_is() {
        let script = Script::of([("r.test", Says::addresses([PUBLIC]))]);
        let names = Names::new(Arc::<Script>::clone(&script));
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        script.say("r.test", Says::addresses([OTHER]));
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
        names.doubt("r.test");
        assert_eq!(ask(&names).await.unwrap(), OTHER, "asked again at once when the old addresses lead nowhere");
        script.say("r.test", Says::addresses([PUBLIC]));
        after(10).await;
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
    }

    #[tokio::test(start_paused = true)]
    async fn a_herd_asks_once_and_what_hangs_is_not_asked_again() {
        let script = Script::of([("r.test", Says::Hangs)]);
        let names = Names::new(Arc::<Script>::clone(&script));
        let herd = futures_util::future::join_all((0..100).map(|_| ask(&names))).await;
        assert!(herd.iter().all(Result::is_err));
        assert!(ask(&names).await.is_err());
        assert_eq!(script.asked("r.test"), 1);
        script.say("r.test", Says::addresses([PUBLIC]));
        script.release();
        assert!(ask(&names).await.unwrap_err().contains("Temporary failure"), "the question ended at last");
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_gets_lost_is_asked_again() {
        let script = Script::of([("r.test", Says::Panics)]);
        let names = Names::new(Arc::<Script>::clone(&script));
        assert_eq!(ask(&names).await.unwrap_err(), "the question was lost");
        assert_eq!(names.known.lock().len(), 0);
        script.say("r.test", Says::addresses([PUBLIC]));
        assert_eq!(ask(&names).await.unwrap(), PUBLIC);

        script.say("r.test", Says::Panics);
        after(11).await;
        assert_eq!(ask(&names).await.unwrap(), PUBLIC, "the old answer stands in");
        script.say("r.test", Says::addresses([OTHER]));
        after(6).await;
        assert_eq!(ask(&names).await.unwrap(), OTHER);
    }

    #[test]
    fn a_question_that_ends_with_its_runtime_is_asked_again_in_the_next() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let script = Script::of([("r.test", Says::Hangs)]);
        let names = Names::new(Arc::<Script>::clone(&script));
        assert!(runtime().block_on(ask(&names)).is_err());
        script.say("r.test", Says::addresses([PUBLIC]));
        assert_eq!(runtime().block_on(ask(&names)).unwrap(), PUBLIC);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_mean_nothing_take_no_room() {
        let script = Script::of([]);
        let names = Names::new(Arc::<Script>::clone(&script));
        assert!(ask(&names).await.is_err());
        script.say("r.test", Says::Addresses(Vec::new()));
        assert_eq!(ask(&names).await.unwrap_err(), "it has no address");
        assert_eq!(names.known.lock().len(), 0);
    }
}
