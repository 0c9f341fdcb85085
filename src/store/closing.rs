//! The end of a store: nothing is begun any more, and the directory is free for another process.
//!
//! Whoever drops the last of all clones closes it as well; but those live in tasks, and who knows when the last of these
//! has ended.

use super::Store;

impl Store {
    /// Waits for what is being done to the directory, and gives it up. Nothing is written or read any more: whoever asks
    /// for it waits for ever.
    pub async fn close(&self) {
        self.disk.pool.stop().await;
        // Who looks after it is outside the pool, and finds that it may not write.
        drop(self.disk.lock.lock().take());
    }
}
