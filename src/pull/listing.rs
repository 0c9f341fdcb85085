//! Lists of upstreams, believed for a while like tags: asked for once at a time, kept in memory, and served stale while
//! no upstream can be asked.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use moka::future::Cache;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::Scope;
use super::coalesce::Coalesce;
use super::freshness::may_serve_stale;
use super::outcome::CacheResult;
use crate::config::TagsConfig;
use crate::upstream::Attempts;

/// How many bytes of lists of one kind are held.
const MEMORY_BYTES: u64 = 8 * 1024 * 1024;

/// Lists of one kind: `K` tells them apart within a repository.
pub(super) struct Listing<K, T> {
    memory: Cache<(Scope, K), (T, Instant)>,
    questions: Coalesce<(Scope, K), Result<T, Attempts>>,
}

impl<K, T> fmt::Debug for Listing<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("questions", &self.questions).finish_non_exhaustive()
    }
}

/// A list, and what there is to say about it.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) list: T,
    pub(super) result: CacheResult,
    pub(super) warning: Option<String>,
}

impl<K, T> Listing<K, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// `weigh` tells the bytes that a list takes; questions are tracked by `tasks`.
    pub(super) fn new(tasks: TaskTracker, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        let weigher =
            move |_: &(Scope, K), (list, _): &(T, Instant)| u32::try_from(weigh(list) + 512).unwrap_or(u32::MAX);
        Self {
            memory: Cache::builder().max_capacity(MEMORY_BYTES).weigher(weigher).build(),
            questions: Coalesce::new(tasks),
        }
    }

    /// A list: as remembered while it is fresh, else as an upstream sends it, else as remembered after all.
    pub(super) async fn find<F>(
        &self,
        config: &TagsConfig,
        key: (Scope, K),
        ask: impl FnOnce() -> F,
    ) -> Result<Found<T>, Attempts>
    where
        F: Future<Output = Result<T, Attempts>> + Send + 'static,
    {
        let known = self.memory.get(&key).await;
        let age = known.as_ref().map_or(Duration::MAX, |(_, when)| when.elapsed());
        if let Some((list, _)) = known.as_ref().filter(|_| age < config.fresh) {
            return Ok(Found { list: list.clone(), result: CacheResult::Hit, warning: None });
        }
        let (memory, question, fresh) = (self.memory.clone(), key.clone(), config.fresh);
        let ask = || {
            let asked = ask();
            async move {
                // Between the look and this question another one may have ended.
                match memory.get(&question).await {
                    Some((list, when)) if when.elapsed() < fresh => Ok(list),
                    _ => {
                        let list = asked.await?;
                        memory.insert(question, (list.clone(), Instant::now())).await;
                        Ok(list)
                    }
                }
            }
        };
        // A task that died has said nothing, like an upstream that does not answer.
        let shared = self.questions.run(key, ask).await;
        match (shared.map_or_else(|| Err(Attempts::default()), |shared| shared.answer), known) {
            (Ok(list), _) => Ok(Found { list, result: CacheResult::Miss, warning: None }),
            (Err(attempts), Some((list, _))) if may_serve_stale(config, age, attempts.conclusion()) => {
                let warning = format!("The list cannot be confirmed upstream and is served as last seen: {attempts}");
                Ok(Found { list, result: CacheResult::Stale, warning: Some(warning) })
            }
            (Err(attempts), _) => Err(attempts),
        }
    }
}
