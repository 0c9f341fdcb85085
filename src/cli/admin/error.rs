//! Why a running server did not do what was asked.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Why the server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum AdminError {
    /// The address is none.
    #[error("`--admin-url` is not an address such as http://127.0.0.1:5001")]
    Address,
    /// The token cannot be read.
    #[error("The token file {} cannot be read: {source}", path.display())]
    Token { path: PathBuf, source: std::io::Error },
    /// Nobody answers.
    #[error("No server answers at {url}: {reason}; is weir running, and is that its `admin.listen`?")]
    Unreachable { url: Shown, reason: String },
    /// The server refuses.
    #[error("{0}")]
    Refused(String),
    /// Another server answers.
    #[error("{0} does not answer as weir's admin listener does")]
    NotWeir(Shown),
    /// The answer ended before the work did.
    #[error("{0} broke off before the work had ended; what is done by now stays done")]
    BrokenOff(Shown),
    /// There is no such upstream.
    #[error("No upstream is named `{name}`; there are: {}", known.join(", "))]
    NoSuchUpstream { name: String, known: Vec<String> },
    /// There are several.
    #[error("Several registries have an upstream named `{name}`; add one of: {}", with_option(registries))]
    Ambiguous { name: String, registries: Vec<String> },
}

impl AdminError {
    /// Whether nobody was there to ask.
    pub(in crate::cli) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// An address as it is printed: a password may stand in it.
#[derive(Debug)]
pub(in crate::cli) struct Shown(String);

impl Shown {
    pub(super) fn of(url: &Url) -> Self {
        Self(format!("{}{}", url.origin().ascii_serialization(), url.path()))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn with_option(registries: &[String]) -> String {
    registries.iter().map(|registry| format!("--registry {registry}")).collect::<Vec<_>>().join(", ")
}
