//! The servers that are compared, each with the configuration a careful operator would give it.
//!
//! All run at the same time and take turns; those that are not being measured are idle. None writes an access log:
//! nginx and docker-registry have it turned off, Weir runs at `log.level: warn`; [`PeerKind::WeirLogging`] shows what
//! its default costs.

mod docker_registry;
mod nginx;
pub(crate) mod s3s_fs;
mod server;
mod weir;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::measure::{Meter, resident};
use crate::registry::ADDRESSES;
pub(crate) use server::Ending;
use server::Server;

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum PeerKind {
    /// The upstream itself, with nothing in between.
    Direct,
    /// nginx serving the upstream's files with sendfile: the ceiling.
    NginxStatic,
    /// The same with `open_file_cache`, which nginx has off by default.
    NginxOpenFiles,
    /// nginx with `proxy_cache` and `proxy_cache_lock`.
    NginxCache,
    /// Debian's docker-registry in proxy mode.
    DockerRegistry,
    Weir,
    /// Weir with its log as it is by default: a line for every request.
    WeirLogging,
    /// Weir that asks its upstream about a tag every time.
    WeirOne,
    /// The same with three upstreams, which are one registry under three addresses.
    WeirThree,
    /// The server of a bucket, with nothing in between.
    S3sFs,
    /// Weir with a store in that bucket.
    WeirBucket,
}

impl PeerKind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Direct,
        Self::NginxStatic,
        Self::NginxOpenFiles,
        Self::NginxCache,
        Self::DockerRegistry,
        Self::Weir,
        Self::WeirLogging,
        Self::WeirOne,
        Self::WeirThree,
        Self::S3sFs,
        Self::WeirBucket,
    ];

    /// Those who are enough to see that every row works.
    pub(crate) const SMOKE: [Self; 6] =
        [Self::Direct, Self::NginxStatic, Self::NginxCache, Self::Weir, Self::WeirOne, Self::WeirThree];

    /// Those whose growth is of interest.
    pub(crate) const GROWTH: [Self; 2] = [Self::NginxCache, Self::Weir];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::NginxStatic => "nginx-static",
            Self::NginxOpenFiles => "nginx-open-files",
            Self::NginxCache => "nginx-cache",
            Self::DockerRegistry => "docker-registry",
            Self::Weir => "weir",
            Self::WeirLogging => "weir-logging",
            Self::WeirOne => "weir-one",
            Self::WeirThree => "weir-three",
            Self::S3sFs => "s3s-fs",
            Self::WeirBucket => "weir-bucket",
        }
    }

    /// Whether it is Weir, in whatever configuration.
    pub(crate) fn is_weir(self) -> bool {
        matches!(self, Self::Weir | Self::WeirLogging | Self::WeirOne | Self::WeirThree | Self::WeirBucket)
    }

    /// Whether it takes part in the rows of W11 and in no other.
    pub(crate) fn is_for_failover(self) -> bool {
        matches!(self, Self::WeirOne | Self::WeirThree)
    }

    /// Whether it takes part in the rows of W12 and in no other.
    pub(crate) fn is_for_bucket(self) -> bool {
        matches!(self, Self::S3sFs | Self::WeirBucket)
    }

    /// Whether it keeps copies of what it fetches, as it would in production.
    pub(crate) fn is_cache(self) -> bool {
        matches!(self, Self::NginxCache | Self::DockerRegistry | Self::Weir)
    }

    /// The program it needs, unless it is ours.
    pub(crate) fn program(self) -> Option<&'static str> {
        match self {
            Self::NginxStatic | Self::NginxOpenFiles | Self::NginxCache => Some("nginx"),
            Self::DockerRegistry => Some("docker-registry"),
            Self::S3sFs | Self::WeirBucket => Some("s3s-fs"),
            Self::Direct | Self::Weir | Self::WeirLogging | Self::WeirOne | Self::WeirThree => None,
        }
    }

    /// Whether its program is installed.
    pub(crate) fn is_installed(self) -> bool {
        self.program().is_none_or(|program| server::find(program).is_some())
    }
}

impl fmt::Display for PeerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What the servers have to know of each other.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Where each server gets a directory of its own.
    pub(crate) directory: PathBuf,
    /// The files that nginx-static serves.
    pub(crate) files: PathBuf,
    /// The addresses of the upstream. All but [`PeerKind::WeirThree`] know the first alone.
    pub(crate) upstreams: [SocketAddr; ADDRESSES],
    /// The address of the server of a bucket, if there is one.
    pub(crate) bucket: Option<SocketAddr>,
}

impl Surroundings {
    /// The address of the upstream.
    pub(crate) fn upstream(&self) -> SocketAddr {
        self.upstreams[0]
    }
}

/// One of the compared, running.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) kind: PeerKind,
    pub(crate) address: SocketAddr,
    server: Option<Server>,
    /// Where the files are that it serves.
    content: PathBuf,
}

impl Peer {
    /// Starts it with an empty store of that name and waits until it answers.
    pub(crate) fn start(kind: PeerKind, name: &str, surroundings: &Surroundings) -> Result<Self> {
        let directory = surroundings.directory.join(name);
        fs::create_dir_all(&directory)?;
        let content = match kind {
            PeerKind::Direct | PeerKind::NginxStatic | PeerKind::NginxOpenFiles => surroundings.files.clone(),
            _ => directory.join("content"),
        };
        let commands = |file_cache| nginx::serving_files(&directory, &surroundings.files, file_cache);
        let command = match kind {
            PeerKind::Direct => {
                return Ok(Self { kind, address: surroundings.upstream(), server: None, content });
            }
            PeerKind::NginxStatic => commands(nginx::OpenFileCache::Off)?,
            PeerKind::NginxOpenFiles => commands(nginx::OpenFileCache::On)?,
            PeerKind::NginxCache => nginx::caching(&directory, &content, surroundings.upstream())?,
            PeerKind::DockerRegistry => docker_registry::caching(&directory, &content, surroundings.upstream())?,
            PeerKind::S3sFs => s3s_fs::serving(&content)?,
            PeerKind::WeirBucket => {
                let bucket = surroundings.bucket.context("There is no bucket")?;
                weir::with_bucket(&directory, &content, surroundings.upstream(), bucket)?
            }
            PeerKind::Weir | PeerKind::WeirLogging | PeerKind::WeirOne | PeerKind::WeirThree => {
                let difference = match kind {
                    PeerKind::WeirLogging => weir::Difference::Log,
                    PeerKind::WeirOne | PeerKind::WeirThree => weir::Difference::Tags,
                    _ => weir::Difference::None,
                };
                let upstreams = if kind == PeerKind::WeirThree { ADDRESSES } else { 1 };
                weir::caching(&directory, &content, &surroundings.upstreams[..upstreams], difference)?
            }
        };
        let server = Server::start(command, &directory).with_context(|| format!("{kind} does not start"))?;
        Ok(Self { kind, address: server.address(), server: Some(server), content })
    }

    /// Stops it and starts it again on what it has stored; how long it took from its start to its first answer.
    pub(crate) fn restart(&mut self, ending: Ending) -> Result<Duration> {
        self.server.as_mut().context("Only a server can be restarted")?.restart(ending)
    }

    /// How long it took from its start to its first answer.
    pub(crate) fn started_in(&self) -> Option<Duration> {
        self.server.as_ref().map(Server::started_in)
    }

    /// Begins to measure it, unless it is the driver's own process.
    pub(crate) fn meter(&self) -> Result<Option<Meter>> {
        self.server.as_ref().map(|server| Meter::start(server.process())).transpose()
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<Option<u64>> {
        self.server.as_ref().map(|server| resident(server.process())).transpose()
    }

    /// The directory of the files that it serves: of a cache, those it has made.
    pub(crate) fn content(&self) -> &Path {
        &self.content
    }

    /// The directory with one file for each blob that it has, and none for what it notes about them.
    pub(crate) fn blobs(&self) -> PathBuf {
        match self.kind {
            PeerKind::DockerRegistry => self.content.join("docker/registry/v2/blobs"),
            kind if kind.is_weir() => self.content.join("blobs"),
            _ => self.content.clone(),
        }
    }
}
