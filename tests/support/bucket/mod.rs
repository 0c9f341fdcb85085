//! An S3 server whose faults are scripted: in front of a bucket in memory, or of a real server.
//!
//! What it was asked is recorded, so that tests see what was not asked: no condition, no list, no key taken away.

mod conformance;
mod memory;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::memory::Memory;
use super::server::{Body, Serving, serve};
use super::within;

pub(crate) use conformance::keeps_what_a_bucket_promises;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    Head,
    Put,
    Delete,
    List,
    Create,
    Part,
    Complete,
    Abort,
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It is refused with this status and this code in the body.
    Refuse(u16, &'static str),
    /// It is answered 200, with an error of this code in the body, and nothing is done.
    ErrorInSuccess(&'static str),
    /// The connection breaks, and nothing is done.
    Break,
    /// It is done, and then the connection breaks in place of the answer.
    LoseAnswer,
    /// The answer breaks off after so many bytes of its body.
    CutAfter(usize),
    /// Nothing is ever answered.
    Silence,
    /// It waits until the watch says so.
    Hold(watch::Receiver<bool>),
}

/// A request, as it was received.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
}

/// The server.
#[derive(Debug)]
pub(crate) struct S3Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    /// The files of a key.
    keys: TempDir,
    _serving: Serving,
}

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    /// The real server, if there is one behind.
    behind: Option<(SocketAddr, reqwest::Client)>,
    faults: Mutex<Vec<(Operation, usize, Fault)>>,
    /// By the end of a path.
    faults_of_paths: Mutex<Vec<(String, Fault)>>,
    asked: Mutex<Vec<Asked>>,
    under_way: watch::Sender<usize>,
    most_under_way: Mutex<usize>,
    /// How many requests have met a gate.
    held: Mutex<usize>,
}

impl S3Server {
    /// A bucket in memory.
    pub(crate) async fn in_memory() -> Self {
        Self::start(State::default()).await
    }

    /// A wire with faults before the server at `address`.
    pub(crate) async fn before(address: SocketAddr) -> Self {
        let behind = Some((address, reqwest::Client::builder().no_proxy().build().expect("a client")));
        Self::start(State { behind, ..State::default() }).await
    }

    async fn start(state: State) -> Self {
        let state = Arc::new(state);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::clone(&state);
        let serving = serve(listener, move |request| Arc::clone(&shared).answer(request));
        let keys = tempfile::tempdir().expect("a directory");
        for file in ["id", "key"] {
            std::fs::write(keys.path().join(file), "testkey").expect("a file");
        }
        Self { address, state, keys, _serving: serving }
    }

    /// `store.s3` for the bucket `images` on this server.
    pub(crate) fn config(&self) -> Value {
        self.config_at(self.address)
    }

    /// Puts the name of another key into the file that the configuration names.
    pub(crate) fn replace_key_id(&self, id: &str) {
        std::fs::write(self.keys.path().join("id"), id).expect("a file");
    }

    /// The same, of a server at another address.
    pub(crate) fn config_at(&self, address: SocketAddr) -> Value {
        json!({
            "bucket": "images",
            "endpoint": format!("http://{address}"),
            "prefix": "weir/",
            "access_key_id_file": self.keys.path().join("id"),
            "secret_access_key_file": self.keys.path().join("key"),
            "upload_memory": "40MiB",
        })
    }

    /// The next `times` requests for `operation` meet `fault`.
    pub(crate) fn fault(&self, operation: Operation, times: usize, fault: Fault) {
        self.state.faults.lock().push((operation, times, fault));
    }

    /// All requests meet `fault`.
    pub(crate) fn fault_all(&self, fault: &Fault) {
        use Operation::{Abort, Complete, Create, Delete, Get, Head, List, Part, Put};
        for operation in [Get, Head, Put, Delete, List, Create, Part, Complete, Abort] {
            self.fault(operation, usize::MAX, fault.clone());
        }
    }

    /// All requests for what ends in `path` meet `fault`.
    pub(crate) fn fault_path(&self, path: &str, fault: Fault) {
        self.state.faults_of_paths.lock().push((path.to_owned(), fault));
    }

    /// No more faults.
    pub(crate) fn mend(&self) {
        self.state.faults_of_paths.lock().clear();
        self.state.faults.lock().clear();
    }

    /// Everything that was asked since the last call.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock())
    }

    /// How often `operation` was asked for.
    pub(crate) fn count(&self, operation: Operation) -> usize {
        self.state.asked.lock().iter().filter(|asked| asked.operation == operation).count()
    }

    /// Waits until so many requests are under way at once.
    pub(crate) async fn has_under_way(&self, count: usize) {
        let mut under_way = self.state.under_way.subscribe();
        within("requests under way", under_way.wait_for(|now| *now >= count)).await.expect("the server is there");
    }

    /// Whether a request has met a gate.
    pub(crate) fn is_held(&self) -> bool {
        *self.state.held.lock() > 0
    }

    /// The most requests that were ever under way at once.
    pub(crate) fn most_under_way(&self) -> usize {
        *self.state.most_under_way.lock()
    }

    /// What a bucket in memory holds under `key` below the prefix.
    pub(crate) fn object(&self, key: &str) -> Option<Bytes> {
        self.state.memory.object(&format!("/images/weir/{key}"))
    }

    /// Puts something there, past everybody.
    pub(crate) fn plant(&self, key: &str, body: Bytes) {
        self.state.memory.plant(&format!("/images/weir/{key}"), body);
    }

    /// Takes it away.
    pub(crate) fn snatch(&self, key: &str) {
        self.state.memory.snatch(&format!("/images/weir/{key}"));
    }

    /// As if everything whose key begins with `prefix` had been written so much earlier.
    pub(crate) fn age(&self, prefix: &str, by: Duration) {
        let prefix = format!("/images/weir/{prefix}");
        self.state.memory.age(by, |path| path.starts_with(&prefix));
    }

    /// The keys of everything in memory, without the prefix.
    pub(crate) fn keys(&self) -> Vec<String> {
        let keys = self.state.memory.keys();
        keys.iter().filter_map(|key| key.strip_prefix("/images/weir/").map(str::to_owned)).collect()
    }

    /// How many uploads have begun and neither been completed nor given up.
    pub(crate) fn open_uploads(&self) -> usize {
        self.state.memory.open_uploads()
    }
}

impl State {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let operation = operation(&parts.method, &parts.uri);
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        self.asked.lock().push(Asked { operation, path, query, headers: parts.headers.clone() });
        let Ok(body) = body.collect().await else { return broken() };
        let body = body.to_bytes();
        let _under_way = UnderWay::begin(&self);
        let fault = self.fault_of(parts.uri.path()).or_else(|| self.next_fault(operation));
        match &fault {
            Some(Fault::Refuse(status, code)) => return error(*status, code),
            Some(Fault::ErrorInSuccess(code)) => return error(200, code),
            Some(Fault::Break) => return broken(),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Hold(gate)) => {
                *self.held.lock() += 1;
                let _ = gate.clone().wait_for(|open| *open).await;
            }
            Some(Fault::LoseAnswer | Fault::CutAfter(_)) | None => {}
        }
        let answer = match &self.behind {
            Some((address, client)) => pass_on(client, *address, parts, body).await,
            None => self.memory.answer(operation, &parts, body),
        };
        match fault {
            Some(Fault::LoseAnswer) => broken(),
            Some(Fault::CutAfter(bytes)) => cut(answer, bytes),
            _ => answer.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync()),
        }
    }

    fn fault_of(&self, path: &str) -> Option<Fault> {
        let faults = self.faults_of_paths.lock();
        faults.iter().find(|(end, _)| path.ends_with(end)).map(|(_, fault)| fault.clone())
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let (_, left, fault) = faults.iter_mut().find(|(of, left, _)| *of == operation && *left > 0)?;
        *left -= 1;
        Some(fault.clone())
    }
}

/// A request under way, until it is dropped.
struct UnderWay(Arc<State>);

impl UnderWay {
    fn begin(state: &Arc<State>) -> Self {
        state.under_way.send_modify(|count| *count += 1);
        let (now, mut most) = (*state.under_way.borrow(), state.most_under_way.lock());
        *most = now.max(*most);
        Self(Arc::clone(state))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

fn operation(method: &Method, uri: &Uri) -> Operation {
    let query = uri.query().unwrap_or_default();
    match (method.as_str(), query.contains("uploadId="), query) {
        ("GET", _, query) if query.contains("list-type=2") => Operation::List,
        ("GET", ..) => Operation::Get,
        ("HEAD", ..) => Operation::Head,
        ("PUT", true, _) => Operation::Part,
        ("PUT", ..) => Operation::Put,
        ("POST", true, _) => Operation::Complete,
        ("POST", ..) => Operation::Create,
        ("DELETE", true, _) => Operation::Abort,
        _ => Operation::Delete,
    }
}

/// The answer of the server behind. The request keeps its host, which is part of its signature.
async fn pass_on(
    client: &reqwest::Client,
    address: SocketAddr,
    parts: http::request::Parts,
    body: Bytes,
) -> Response<Bytes> {
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = client.request(parts.method, format!("http://{address}{path}")).headers(parts.headers).body(body);
    let answer = request.send().await.expect("the server behind answers");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut passed = Response::new(answer.bytes().await.expect("an answer from the server behind"));
    (*passed.status_mut(), *passed.headers_mut()) = (status, headers);
    passed.headers_mut().remove(http::header::TRANSFER_ENCODING);
    passed
}

/// An error as S3 has it.
fn error(status: u16, code: &str) -> Response<Body> {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>By the script.</Message></Error>");
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(StatusCode::from_u16(status).expect("a status")).body(body).expect("an answer")
}

/// An answer that breaks the connection before its first byte is out.
fn broken() -> Response<Body> {
    let broken = stream::once(async { Err::<Frame<Bytes>, _>(io::Error::other("by the script")) });
    Response::new(StreamBody::new(broken).boxed_unsync())
}

fn cut(mut answer: Response<Bytes>, bytes: usize) -> Response<Body> {
    let length = answer.body().len().into();
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    answer.map(|body| {
        let begin = body.slice(..bytes.min(body.len()));
        let frames = stream::iter([Ok(Frame::data(begin))]);
        // What has been said goes out before the connection breaks.
        let broken = stream::once(async {
            tokio::task::yield_now().await;
            Err(io::Error::other("by the script"))
        });
        StreamBody::new(frames.chain(broken)).boxed_unsync()
    })
}
