//! How the last attempt to take over a configuration went, for logs, metrics and the readiness probe.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::admin::{Check, CheckState};
use crate::telemetry::metrics::ConfigMetrics;

/// The news about the configuration. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status(Arc<Mutex<News>>);

#[derive(Debug, Default)]
struct News {
    /// Why the configuration as it is written is not in force.
    refused: Option<String>,
    /// Which of its keys wait for a restart.
    held: Vec<&'static str>,
}

impl Status {
    /// The check behind readiness. It never fails: the configuration in force still serves.
    pub(crate) fn check(&self) -> Check {
        let status = self.clone();
        Check::new("config", move || status.state())
    }

    /// A configuration is in force, except for what is `held`.
    pub(super) fn taken(&self, held: Vec<&'static str>, hash: &str, metrics: &ConfigMetrics) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        metrics.last_success.set(i64::try_from(now).unwrap_or(i64::MAX));
        metrics.info.reset();
        metrics.info.with_label_values(&[hash]).set(1);
        *self.0.lock() = News { refused: None, held };
    }

    /// The configuration as it is written was refused; the one before stays in force.
    pub(super) fn refused(&self, reason: String) {
        self.0.lock().refused = Some(reason);
    }

    fn state(&self) -> CheckState {
        let News { refused, held } = &*self.0.lock();
        let refused = refused.as_ref().map(|reason| format!("the previous one stays in force: {reason}"));
        let held = (!held.is_empty()).then(|| format!("a restart is needed for {}", held.join(", ")));
        let news: Vec<String> = refused.into_iter().chain(held).collect();
        if news.is_empty() { CheckState::Ok } else { CheckState::Degraded(news.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_configuration_that_is_not_in_force_degrades_readiness_until_one_is() {
        let (status, metrics) = (Status::default(), Metrics::new().unwrap());
        let degraded = |text: &str| CheckState::Degraded(text.to_owned());
        assert_eq!(status.state(), CheckState::Ok);
        status.taken(vec!["server.listen", "store.path"], "a", &metrics.config);
        assert_eq!(status.state(), degraded("a restart is needed for server.listen, store.path"));
        status.refused("weir.yaml:1:1: Unknown key".to_owned());
        assert_eq!(
            status.state(),
            degraded(
                "the previous one stays in force: weir.yaml:1:1: Unknown key; a restart is needed for server.listen, store.path"
            )
        );
        status.taken(Vec::new(), "b", &metrics.config);
        assert_eq!(status.state(), CheckState::Ok);
        let text = metrics.encode().unwrap();
        assert!(text.contains("weir_config_info{hash=\"b\"} 1") && !text.contains("hash=\"a\""), "{text}");
    }
}
