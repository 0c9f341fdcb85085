//! `/api/v1/verify` and `/api/v1/gc`: looking after the store by hand, told line by line.
//!
//! The work belongs to the one who asks: it ends when nobody reads the answer any more. What is done by then stays done.

mod gc;
mod verify;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::post;
use http::HeaderMap;
use url::form_urlencoded;

use super::guard::Guard;
use super::lines::{Lines, Unread};
use super::problem::Problem;
use crate::config;
use crate::pull::Upkeep;

use gc::{Collection, Mode};
pub use verify::Sample;
use verify::{Afterwards, Verification};

/// What looking after the store works on.
#[derive(Debug, Clone)]
pub struct Housekeeping {
    /// The store, and where what is damaged is fetched again.
    pub upkeep: Upkeep,
    /// Who may change anything.
    pub guard: Guard,
}

/// The routes.
pub(super) fn router(housekeeping: Housekeeping) -> Router {
    Router::new().route("/verify", post(verify)).route("/gc", post(gc)).with_state(housekeeping)
}

async fn verify(
    State(housekeeping): State<Housekeeping>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    housekeeping.guard.admit(&headers)?;
    let wanted = Verification::of(query.as_deref().unwrap_or_default())?;
    Ok(told(async move |lines| wanted.run(&housekeeping.upkeep, &lines).await))
}

async fn gc(
    State(housekeeping): State<Housekeeping>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    housekeeping.guard.admit(&headers)?;
    let wanted = Collection::of(query.as_deref().unwrap_or_default())?;
    Ok(told(async move |lines| wanted.run(&housekeeping.upkeep, &lines).await))
}

/// Answers with the lines that `work` says. Whoever does not read them any more does not want it.
fn told<F>(work: impl FnOnce(Lines) -> F) -> Response
where
    F: Future<Output = Result<(), Unread>> + Send + 'static,
{
    let (lines, answer) = Lines::answer();
    let work = work(lines.clone());
    tokio::spawn(async move {
        tokio::select! {
            _unread = work => {}
            () = lines.unread() => {}
        }
    });
    answer
}

impl Verification {
    /// `?sample=5%&repair=true`.
    fn of(query: &str) -> Result<Self, Problem> {
        let (mut sample, mut afterwards) = (Sample::ALL, Afterwards::LeaveThem);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("sample", value) => {
                    let malformed = || Problem::Malformed(format!("`{value}` is no share: say `?sample=5%`"));
                    sample = Sample::parse(value).ok_or_else(malformed)?;
                }
                ("repair", "true") => afterwards = Afterwards::FetchThem,
                ("repair", "false") => afterwards = Afterwards::LeaveThem,
                (key, value) => return Err(unknown(key, value)),
            }
        }
        Ok(Self { sample, afterwards })
    }
}

impl Collection {
    /// `?target_size=80GiB&dry_run=true`.
    fn of(query: &str) -> Result<Self, Problem> {
        let (mut target, mut mode) = (None, Mode::InEarnest);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("target_size", value) => {
                    let malformed = || Problem::Malformed(format!("`{value}` is no size: say `?target_size=80GiB`"));
                    target = Some(config::bytes(value).ok_or_else(malformed)?);
                }
                ("dry_run", "true") => mode = Mode::DryRun,
                ("dry_run", "false") => mode = Mode::InEarnest,
                (key, value) => return Err(unknown(key, value)),
            }
        }
        Ok(Self { target, mode })
    }
}

fn unknown(key: &str, value: &str) -> Problem {
    Problem::Malformed(format!("`{key}={value}` is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_say_what_is_wanted() {
        let verification = |query| Verification::of(query).unwrap();
        let all = Verification { sample: Sample::ALL, afterwards: Afterwards::LeaveThem };
        assert_eq!(verification(""), all);
        assert_eq!(verification("repair=false"), all);
        let some = Verification { sample: Sample::parse("5%").unwrap(), afterwards: Afterwards::FetchThem };
        assert_eq!(verification("sample=5%25&repair=true"), some);
        assert_eq!(verification("repair=true&sample=5%"), some, "as people write it by hand");

        let collection = |query| Collection::of(query).unwrap();
        assert_eq!(collection(""), Collection { target: None, mode: Mode::InEarnest });
        let trial = Collection { target: Some(80 << 30), mode: Mode::DryRun };
        assert_eq!(collection("target_size=80GiB&dry_run=true"), trial);
    }

    #[test]
    fn what_is_not_understood_is_not_done() {
        for query in ["sample=0%", "sample=101%", "sample=x", "sample=", "repair=yes", "repair", "depth=3"] {
            assert!(matches!(Verification::of(query), Err(Problem::Malformed(_))), "{query}");
        }
        for query in ["target_size=5%", "target_size=-1", "dry_run=1", "dry-run=true", "sample=5%"] {
            assert!(matches!(Collection::of(query), Err(Problem::Malformed(_))), "{query}");
        }
    }
}
