//! How a command fails, and with which exit code.

use std::process::ExitCode;

use super::admin::AdminError;
use super::images::{InputError, PinError};
use super::mirror::MirrorError;
use crate::app::TlsError;
use crate::config::ConfigError;
use crate::upstream::SetupError;

/// A failed command. Wrong arguments are not among these: the parser of arguments ends the process with 2 by itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The configuration cannot be used.
    #[error("{0}\n\nThe configuration is invalid")]
    Config(#[from] ConfigError),
    /// The files of `server.tls` cannot be used.
    #[error("{0}\n\nThe configuration is invalid")]
    Tls(#[from] TlsError),
    /// The files of an upstream cannot be used.
    #[error("{0}\n\nThe configuration is invalid")]
    Upstream(#[from] SetupError),
    /// The files for a runtime cannot be made.
    #[error("{0}")]
    Mirror(#[from] MirrorError),
    /// A running server cannot be asked, or refuses.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// A list of images cannot be used.
    #[error("{0}")]
    Input(#[from] InputError),
    /// There is nothing like that to unpin.
    #[error("{0}")]
    Pin(#[from] PinError),
    /// A store cannot be worked on without a server.
    #[error("{0:#}")]
    Offline(anyhow::Error),
    /// The server failed.
    #[error("{0:#}")]
    Serve(anyhow::Error),
}

impl CliError {
    /// The exit code: part of the interface, scripts rely on it.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Mirror(error) if error.is_usage() => 2,
            Self::Admin(error) if error.is_unreachable() => 5,
            Self::Input(_) => 2,
            Self::Mirror(_) | Self::Admin(_) | Self::Pin(_) | Self::Offline(_) | Self::Serve(_) => 1,
            Self::Config(_) | Self::Tls(_) | Self::Upstream(_) => 3,
        })
    }
}
