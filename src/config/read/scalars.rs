//! Single values: text to type. Each says what it would have accepted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::section::{Wrong, expected, list, nearest};
use crate::config::address::{self, InvalidUrl};
use crate::config::bucket::{PARTS_IN_MEMORY, SMALLEST_PART};
use crate::config::network::{ProxyChoice, ProxyServer};
use crate::config::registries::RepositoryPattern;
use crate::config::store::SizeLimit;
use crate::config::units;
use crate::oci::{RegistryHost, RepositoryName};

pub(super) fn boolean(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(Wrong::Expected("`true` or `false`".to_owned())),
    }
}

pub(super) fn text(text: &str) -> Result<String, Wrong> {
    expected(Some(text.to_owned()).filter(|text| !text.is_empty()), "a text that is not empty")
}

pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    expected(Some(PathBuf::from(text)).filter(|_| !text.is_empty()), "a path")
}

pub(super) fn count(text: &str) -> Result<usize, Wrong> {
    expected(text.parse().ok().filter(|count| *count > 0), "a whole number of at least 1, such as `4096`")
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    expected(text.parse().ok(), "an IP address and a port, such as `127.0.0.1:5000`, `0.0.0.0:5000` or `[::]:5000`")
}

pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    expected(units::duration(text), units::DURATION)
}

pub(super) fn size_limit(text: &str) -> Result<SizeLimit, Wrong> {
    expected(units::size_limit(text), units::SIZE)
}

/// A size that leaves room for something.
pub(super) fn positive_size_limit(text: &str) -> Result<SizeLimit, Wrong> {
    let is_positive = |size: &SizeLimit| match *size {
        SizeLimit::Bytes(bytes) => bytes > 0,
        SizeLimit::Percent(percent) => percent > 0.0,
    };
    expected(units::size_limit(text).filter(is_positive), &format!("{}, and more than nothing", units::SIZE))
}

pub(super) fn regex(text: &str) -> Result<Regex, Wrong> {
    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").trim_end_matches('.');
        Wrong::Expected(format!(
            "a regular expression, such as '^v?\\d+\\.\\d+\\.\\d+$'; this one does not parse: {reason}"
        ))
    })
}

/// A registry's name: it must not be mistaken for the first component of a repository on Docker Hub, which holds
/// neither a dot nor a port.
pub(super) fn registry_host(text: &str) -> Result<RegistryHost, Wrong> {
    let is_distinct = |host: &RegistryHost| host.as_str().contains(['.', ':']) || host.as_str() == "localhost";
    let what = "a host name with a dot or a port, such as `ghcr.io` or `registry.example.com:5000`";
    expected(text.parse().ok().filter(is_distinct), what)
}

/// Another name for a registry. Stricter than [`registry_host`]: it is somebody's invention and stands in paths.
pub(super) fn alias(text: &str) -> Result<RegistryHost, Wrong> {
    let what =
        "a host name with a dot, such as `office.example`, because one without could hide a Docker Hub organisation";
    expected(text.parse().ok().filter(|host: &RegistryHost| host.as_str().contains('.')), what)
}

/// A host that may act as a token server.
pub(super) fn realm_host(text: &str) -> Result<String, Wrong> {
    let host = text.parse::<RegistryHost>().ok();
    expected(host.map(|host| host.as_str().to_owned()), "a host name, such as `auth.example.com`")
}

/// A repository, or the first components of many.
pub(super) fn repository_name(text: &str) -> Result<RepositoryName, Wrong> {
    expected(text.parse().ok(), "a repository name, such as `acme/app`, without a registry")
}

pub(super) fn repository_pattern(text: &str) -> Result<RepositoryPattern, Wrong> {
    expected(text.parse().ok(), "a repository pattern, such as `acme/**`, `*/app` or `**`")
}

/// The name of an upstream, which becomes a label of metrics and a word in headers.
pub(super) fn upstream_name(text: &str) -> Result<String, Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(is_plain);
    expected(
        is_name.then(|| text.to_owned()),
        "a name of letters, digits, `.`, `_`, `:` and `-`, such as `office-mirror`",
    )
}

pub(super) fn upstream_url(text: &str) -> Result<Url, Wrong> {
    address::upstream_url(text).map_err(|error| wrong_url(error, "https://registry.example.com"))
}

pub(super) fn external_url(text: &str) -> Result<Url, Wrong> {
    address::external_url(text).map_err(|error| wrong_url(error, "https://weir.example.com"))
}

/// What requests go through: nothing, or a proxy that speaks HTTP.
pub(super) fn proxy(text: &str) -> Result<ProxyChoice, Wrong> {
    if text == "none" {
        return Ok(ProxyChoice::None);
    }
    match address::proxy_url(text) {
        Ok(url) => Ok(ProxyChoice::Server(ProxyServer { url, credentials: None })),
        Err(InvalidUrl::UserInfo) => Err(Wrong::Refused(
            "holds a password".to_owned(),
            "Take it out; leave the user name, and name a file with the password as `proxy_password_file`".to_owned(),
        )),
        Err(error) => {
            Err(Wrong::Expected(format!("`none`, or an address such as `http://proxy.example.com:3128`: {error}")))
        }
    }
}

/// The server of a bucket.
pub(super) fn endpoint(text: &str) -> Result<Url, Wrong> {
    address::external_url(text).map_err(|error| match error {
        InvalidUrl::UserInfo => Wrong::Refused(
            "holds a user name or a password".to_owned(),
            "Take it out; a key goes into files named by `access_key_id_file` and `secret_access_key_file`".to_owned(),
        ),
        error => Wrong::Expected(format!("an address such as `https://s3.example.com`: {error}")),
    })
}

pub(super) fn bucket_name(text: &str) -> Result<String, Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_name = begins && (3..=63).contains(&text.len()) && text.bytes().all(is_plain);
    expected(is_name.then(|| text.to_owned()), "the name of a bucket, 3 to 63 letters, digits, `.`, `_` and `-`")
}

pub(super) fn region(text: &str) -> Result<String, Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_name = (1..=63).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(is_plain);
    expected(is_name.then(|| text.to_owned()), "the name of a region, such as `eu-west-1`")
}

/// What keys begin with, without the slash at the end.
pub(super) fn key_prefix(text: &str) -> Result<String, Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain);
    let prefix = text.strip_suffix('/').unwrap_or(text);
    let is_prefix = text.is_empty() || prefix.split('/').all(is_part);
    expected(is_prefix.then(|| prefix.to_owned()), "parts of letters, digits, `.`, `_` and `-`, such as `weir/`")
}

/// A size of what has no size of its own to have a share of.
pub(super) fn bytes(text: &str) -> Result<u64, Wrong> {
    let bytes = match units::size_limit(text) {
        Some(SizeLimit::Bytes(bytes)) => Some(bytes).filter(|bytes| *bytes > 0),
        Some(SizeLimit::Percent(_)) | None => None,
    };
    expected(bytes, "a size of more than nothing, such as `500GiB`; a bucket has no size to have a share of")
}

/// Bytes per second.
pub(super) fn rate(text: &str) -> Result<u64, Wrong> {
    let bytes = match units::size_limit(text) {
        Some(SizeLimit::Bytes(bytes)) => Some(bytes),
        Some(SizeLimit::Percent(_)) | None => None,
    };
    expected(bytes, "a size per second such as `8MiB`, or `0` for not at all")
}

/// Bytes for the parts of uploads.
pub(super) fn upload_memory(text: &str) -> Result<u64, Wrong> {
    let bytes = match units::size_limit(text) {
        Some(SizeLimit::Bytes(bytes)) => Some(bytes).filter(|bytes| *bytes >= PARTS_IN_MEMORY * SMALLEST_PART),
        Some(SizeLimit::Percent(_)) | None => None,
    };
    expected(bytes, "a size of at least `40MiB`, such as `64MiB`: eight parts of uploads, each of 5 MiB or more")
}

fn wrong_url(error: InvalidUrl, example: &str) -> Wrong {
    match error {
        InvalidUrl::UserInfo => Wrong::Refused(
            "holds a user name or a password".to_owned(),
            "Take it out; an upstream's user name and password go into its `credentials`".to_owned(),
        ),
        error => Wrong::Expected(format!("an address such as `{example}`: {error}")),
    }
}

/// Filter directives. A single word must be a level: the parser would take `inof` for the name of a module.
pub(super) fn log_level(text: &str) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_level = LEVELS.contains(&text.to_ascii_lowercase().as_str());
    let parses = if is_word { is_level } else { EnvFilter::builder().parse(text).is_ok() };
    expected(parses.then(|| text.to_owned()), &format!("{}, or directives such as `weir=debug,info`", list(&LEVELS)))
}

/// One of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let slip = nearest(text, &known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
    let choice = if known.len() == 1 { list(&known) } else { format!("one of {}", list(&known)) };
    Err(Wrong::Expected(format!("{choice}{slip}")))
}

/// A word that a later version will understand.
pub(super) fn not_offered(word: &str, instead: &str) -> Wrong {
    Wrong::Refused(format!("is `{word}`, which is not offered by this version of weir"), instead.to_owned())
}
