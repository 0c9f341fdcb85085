//! A source with moods, and time that is paused.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::time::advance;

use super::*;
use crate::config::Secret;

const LIFE: Duration = Duration::from_secs(600);

/// Answers with `p1`, `p2`, ... as long as it is willing, one answer per permit of `gate`.
#[derive(Debug, Default)]
struct Fake {
    asked: AtomicUsize,
    mood: Mutex<Mood>,
    gate: Notify,
}

#[derive(Debug, Clone, Copy, Default)]
enum Mood {
    #[default]
    Gives,
    Same,
    HasNone,
    Fails,
    Waits,
}

#[derive(Debug)]
struct Handle(Arc<Fake>);

impl Source for Handle {
    fn fetch(&self) -> BoxFuture<'_, Result<Option<Lent>, SourceError>> {
        Box::pin(async {
            let number = self.0.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let lent = |name: String| Lent { credential: Credential::of("u", Secret::new(name)), life: LIFE };
            let mood = *self.0.mood.lock();
            match mood {
                Mood::Gives => Ok(Some(lent(format!("p{number}")))),
                Mood::Same => Ok(Some(lent("same".to_owned()))),
                Mood::HasNone => Ok(None),
                Mood::Fails => Err(SourceError::Malformed),
                Mood::Waits => {
                    self.0.gate.notified().await;
                    Ok(Some(lent(format!("p{number}"))))
                }
            }
        })
    }
}

fn loan(mood: Mood) -> (Arc<Fake>, Arc<Loan>) {
    let fake = Arc::new(Fake { mood: Mutex::new(mood), ..Fake::default() });
    (Arc::clone(&fake), Arc::new(Loan::new(Box::new(Handle(fake)), |_| {})))
}

async fn password(loan: &Arc<Loan>) -> Option<String> {
    loan.credential().await.map(|credential| shown(&credential))
}

fn shown(credential: &Credential) -> String {
    match credential {
        Credential::Password { password, .. } => password.expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Lets tasks run that wait for nothing.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn half_way_they_are_renewed_beside_those_who_use_them() {
    let (fake, loan) = loan(Mood::Gives);
    assert_eq!(password(&loan).await.as_deref(), Some("p1"));
    advance(LIFE * 49 / 100).await;
    assert_eq!(password(&loan).await.as_deref(), Some("p1"));
    settle().await;
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    advance(LIFE / 100).await;
    assert_eq!(password(&loan).await.as_deref(), Some("p1"));
    settle().await;
    assert_eq!(password(&loan).await.as_deref(), Some("p2"));
}

#[tokio::test(start_paused = true)]
async fn the_old_ones_are_used_to_their_end_when_renewal_fails() {
    let (fake, loan) = loan(Mood::Gives);
    password(&loan).await;
    *fake.mood.lock() = Mood::Fails;
    advance(LIFE / 2).await;
    for _ in 0..5 {
        assert_eq!(password(&loan).await.as_deref(), Some("p1"));
        settle().await;
    }
    // It is left alone after a failure, and then asked again.
    assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
    advance(PAUSE).await;
    password(&loan).await;
    settle().await;
    assert_eq!(fake.asked.load(Ordering::Relaxed), 3);
    advance(LIFE / 2).await;
    assert_eq!(password(&loan).await, None);
    *fake.mood.lock() = Mood::Gives;
    advance(PAUSE).await;
    assert_eq!(password(&loan).await.as_deref(), Some("p5"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_none_is_left_alone_for_a_while() {
    let (fake, loan) = loan(Mood::HasNone);
    for _ in 0..3 {
        assert_eq!(password(&loan).await, None);
    }
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
    advance(PAUSE).await;
    *fake.mood.lock() = Mood::Gives;
    assert_eq!(password(&loan).await.as_deref(), Some("p2"));
}

#[tokio::test(start_paused = true)]
async fn one_asks_for_all_and_may_leave() {
    let (fake, loan) = loan(Mood::Waits);
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let loan = Arc::clone(&loan);
            tokio::spawn(async move { password(&loan).await })
        })
        .collect();
    settle().await;
    waiting.remove(0).abort();
    fake.gate.notify_one();
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().as_deref(), Some("p1"));
    }
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_asked_for_anew_unless_it_is_new() {
    let (fake, loan) = loan(Mood::Gives);
    let first = loan.credential().await.unwrap();
    assert!(loan.instead_of(&first).await.is_none());
    advance(PAUSE).await;
    let second = loan.instead_of(&first).await.unwrap();
    assert_eq!(shown(&second), "p2");
    // Somebody else was refused with the first one, too.
    assert!(Arc::ptr_eq(&loan.instead_of(&first).await.unwrap(), &second));
    assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
    assert!(Arc::ptr_eq(&loan.credential().await.unwrap(), &second));
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_nothing_new() {
    let (fake, loan) = loan(Mood::Same);
    let first = loan.credential().await.unwrap();
    advance(PAUSE).await;
    assert!(loan.instead_of(&first).await.is_none());
    assert!(loan.instead_of(&first).await.is_none());
    assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
    *fake.mood.lock() = Mood::Fails;
    advance(PAUSE).await;
    assert!(loan.instead_of(&first).await.is_none());
    // It may have been refused for what it was asked for: it is not given up for that.
    assert!(Arc::ptr_eq(&loan.credential().await.unwrap(), &first));
}
