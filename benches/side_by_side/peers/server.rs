//! A server as a child process, stopped by its own process id when it is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::driver::Client;

/// How long a server may take to answer.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(20);
/// Between two looks at whether it is there.
const GLANCE: Duration = Duration::from_micros(500);

/// How to start a server.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<PathBuf>,
    pub(super) address: SocketAddr,
    /// The path that it answers with 200 when it is ready.
    pub(super) ready: &'static str,
}

/// How a server comes to its end before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By `SIGTERM`, and in its own time.
    Asked,
    /// By `SIGKILL`.
    Killed,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    launch: Launch,
    output: PathBuf,
    child: Child,
    started_in: Duration,
}

impl Server {
    /// Starts it, its output in a file of `directory`, and waits until it is ready.
    pub(super) fn start(launch: Launch, directory: &Path) -> Result<Self> {
        let output = directory.join("output.log");
        let child = spawn(&launch, &output)?;
        let mut server = Self { launch, output, child, started_in: Duration::ZERO };
        server.await_ready(Instant::now())?;
        Ok(server)
    }

    pub(super) fn restart(&mut self, ending: Ending) -> Result<Duration> {
        match ending {
            Ending::Asked => self.stop()?,
            Ending::Killed => {
                self.child.kill()?;
                self.child.wait()?;
            }
        }
        let started = Instant::now();
        self.child = spawn(&self.launch, &self.output)?;
        self.await_ready(started)?;
        Ok(self.started_in)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.launch.address
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn started_in(&self) -> Duration {
        self.started_in
    }

    fn await_ready(&mut self, started: Instant) -> Result<()> {
        while !self.answers() {
            if let Some(status) = self.child.try_wait()? {
                bail!("It ended with {status}:\n{}", fs::read_to_string(&self.output)?);
            }
            if started.elapsed() > START {
                bail!("It does not answer within {START:?}:\n{}", fs::read_to_string(&self.output)?);
            }
            thread::sleep(GLANCE);
        }
        self.started_in = started.elapsed();
        Ok(())
    }

    fn answers(&self) -> bool {
        Client::connect(self.launch.address)
            // The server of a bucket lets nobody in without a signature, which is an answer.
            .is_ok_and(|client| client.status(self.launch.ready).is_ok_and(|status| matches!(status, 200 | 403)))
    }

    /// Asks it to end, and waits.
    fn stop(&mut self) -> Result<()> {
        let id = Pid::from_raw(self.child.id().try_into()?).context("A process has an id")?;
        kill_process(id, Signal::TERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOP {
                self.child.kill()?;
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // It has ended by itself, or cannot be asked: there is nothing more to do for it.
            let _ = self.child.kill();
        }
    }
}

fn spawn(launch: &Launch, output: &Path) -> Result<Child> {
    let output = File::options().create(true).append(true).open(output)?;
    Command::new(&launch.program)
        .args(&launch.arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("Cannot start {}", launch.program.display()))
}

/// A loopback address that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where a program is. nginx is in `/usr/sbin`, which is not on everybody's path; `./test` installs others below the
/// directory that Cargo builds in.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let more = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin"), target.join("tools/bin")];
    std::env::split_paths(&path).chain(more).map(|directory| directory.join(program)).find(|file| file.is_file())
}
