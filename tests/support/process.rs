//! Servers as child processes: the real `weir`, and the registries and runtimes around it.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use super::{eventually, within};

/// A child process with its output kept. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    /// The tasks that keep the output. They end with its streams.
    readers: JoinSet<()>,
}

impl Process {
    /// Starts `program`. It gets no terminal, so that it logs for machines.
    pub(crate) fn start<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} must start: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        keep(child.stdout.take(), &output, &mut readers);
        keep(child.stderr.take(), &output, &mut readers);
        Self { child, output, readers }
    }

    /// Everything it wrote so far, both streams in the order of arrival.
    pub(crate) fn output(&self) -> String {
        self.output.lock().clone()
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).expect("the process runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our own child can be signalled");
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("our own child can be killed");
    }

    /// Waits for its end, and for the last of its output.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = within("the end of a process", self.child.wait()).await.expect("our own child can be waited for");
        let last_words = async { while self.readers.join_next().await.is_some() {} };
        within("the end of a process's output", last_words).await;
        status
    }

    /// Asserts that it has not ended by itself.
    pub(crate) async fn assert_runs(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            let status = self.ended().await;
            panic!("the process ended with {status}:\n{}", self.output());
        }
    }

    /// A line of `/proc/PID/status` in bytes, such as `VmHWM`.
    pub(crate) fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel tells");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number of kB");
        kib << 10
    }
}

/// Copies a stream into the buffer, line by line, until it ends.
fn keep(
    stream: Option<impl AsyncRead + Unpin + Send + 'static>,
    output: &Arc<Mutex<String>>,
    readers: &mut JoinSet<()>,
) {
    let Some(stream) = stream else { return };
    let output = Arc::clone(output);
    readers.spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut output = output.lock();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

/// Runs a program to its end; its output, or a panic that shows it.
pub(crate) async fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("the end of a program", output).await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
    text
}

/// How a command ended, and what it said on each stream.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The lines of JSON that tell of long work.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        self.out.lines().map(parse).collect()
    }

    /// Those of one kind.
    pub(crate) fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// How many tasks were done, and how many failed, by the last line.
    pub(crate) fn end(&self) -> (u64, u64) {
        let last = self.events().pop().unwrap_or_else(|| panic!("nothing was said: {}", self.err));
        assert_eq!(last["event"], "end", "{last}");
        (last["done"].as_u64().unwrap(), last["failed"].as_u64().unwrap())
    }
}

/// Runs `weir` to its end, without the environment's say.
pub(crate) async fn weir(arguments: &[&str]) -> Said {
    weir_in(&[], arguments).await
}

/// The same in an environment that has its say.
pub(crate) async fn weir_in(environment: &[[&str; 2]], arguments: &[&str]) -> Said {
    let mut command = Command::new(weir_binary());
    for foreign in ["WEIR_CONFIG", "WEIR_OUTPUT"] {
        command.env_remove(foreign);
    }
    let environment = environment.iter().map(|[name, value]| (name, value));
    command.args(arguments).envs(environment).stdin(Stdio::null()).kill_on_drop(true);
    let output = within("the end of weir", command.output()).await.expect("weir can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("weir writes text");
    Said {
        code: output.status.code().expect("weir ends by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The real `weir`, serving.
#[derive(Debug)]
pub(crate) struct WeirProcess {
    pub(crate) process: Process,
    pub(crate) registry: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl WeirProcess {
    /// Starts the binary under test with this configuration file and waits until it is ready.
    pub(crate) async fn serve(config: &Path) -> Self {
        Self::from(Process::start(weir_binary(), [OsStr::new("serve"), OsStr::new("-c"), config.as_os_str()])).await
    }

    /// Waits until a process that was started as `weir serve` is ready.
    pub(crate) async fn from(mut process: Process) -> Self {
        let mut addresses = None;
        eventually("weir says where it listens", async || {
            process.assert_runs().await;
            addresses = listening(&process.output());
            addresses.is_some()
        })
        .await;
        let (registry, admin) = addresses.expect("just waited for");
        eventually("weir is ready", async || {
            reqwest::get(format!("http://{admin}/readyz")).await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        Self { process, registry, admin }
    }

    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let answer = reqwest::get(format!("http://{}/metrics", self.admin)).await.expect("the admin listener answers");
        super::weir::sum_of_series(&answer.text().await.expect("metrics are text"), name, labels)
    }
}

/// The binary under test: the one Cargo built with the tests, or the one `WEIR_TEST_BINARY` names.
pub(crate) fn weir_binary() -> std::ffi::OsString {
    std::env::var_os("WEIR_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into())
}

/// The addresses of the registry and admin listeners, read from JSON log lines.
fn listening(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut found = (None, None);
    for line in output.lines() {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let fields = event.get("fields").unwrap_or(&event);
        let address = |name: &str| fields.get(name).and_then(|value| value.as_str()).and_then(|text| text.parse().ok());
        found = (found.0.or(address("registry")), found.1.or(address("admin")));
    }
    Some((found.0?, found.1?))
}

/// A loopback port that was free a moment ago, for servers that cannot choose one themselves.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Starts Debian's `docker-registry` with this configuration file and waits until it listens on `address`.
pub(crate) async fn docker_registry(config: &Path, address: SocketAddr) -> Process {
    let mut process = Process::start("docker-registry", [OsStr::new("serve"), config.as_os_str()]);
    eventually("docker-registry listens", async || {
        process.assert_runs().await;
        tokio::net::TcpStream::connect(address).await.is_ok()
    })
    .await;
    process
}
