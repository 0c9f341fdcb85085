//! What is logged, for tests to look at.

use std::io;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::MakeWriter;

/// While there is but one subscriber, `tracing` asks that of the thread which comes by a message first whether anybody
/// wants it, ever. That may be the thread of another test, which has none; with two more nobody is left out.
static MORE: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [(); 2].map(|()| Dispatch::new(NoSubscriber::new())));

/// The lines logged by this thread, one JSON object each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Collects for as long as the guard lives.
    pub(crate) fn collect() -> (Self, DefaultGuard) {
        LazyLock::force(&MORE);
        let lines = Self::default();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    /// The only line.
    pub(crate) fn one(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
