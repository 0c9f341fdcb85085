//! An operator's desk: the token of the admin API in a file, and the commands that show it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Said, weir};

/// What the file says. No log, error or metric may.
pub(crate) const TOKEN: &str = "CANARY-operators";

/// A directory of an operator. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Desk(Arc<TempDir>);

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self(Arc::new(tempfile::tempdir().expect("a directory")));
        // As editors leave it.
        std::fs::write(desk.token_file(), format!("{TOKEN}\n")).expect("the directory can be written to");
        desk
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.path().join("token")
    }

    /// The configuration of a server that takes its token.
    pub(crate) fn config(&self) -> Value {
        json!({ "admin": { "token_file": self.token_file() } })
    }

    /// Says to `weir` which server is meant, by the address of its admin listener, and shows it the token.
    pub(crate) async fn command(&self, admin: &str, arguments: &[&str]) -> Said {
        let token = self.token_file().display().to_string();
        weir(&[arguments, &["--admin-url", admin, "--token-file", &token]].concat()).await
    }
}
