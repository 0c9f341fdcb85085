//! A registry that lies, stalls, breaks and forgets on command.
//!
//! Left alone it is a correct pull-only registry with its content in memory. A script turns it bad: a [`Fault`] for a
//! choice of [`Requests`], such as "the first GET of this blob breaks at byte 1,000,000". Whatever arrives is recorded,
//! faults or not.

mod answer;
mod body;
mod content;
mod record;
mod script;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use weir::oci::Digest;

use self::content::Content;
use self::script::Script;
use super::blob::Blob;
use super::images::Package;
use super::server::{self, Serving};
use super::tokens::TokenServer;
use super::within;

pub(crate) use self::record::{Kind, Recorded};
pub(crate) use self::script::{Fault, Gate, Requests};

/// The registry. Dropping it takes it down.
#[derive(Debug)]
pub(crate) struct ScriptedUpstream {
    address: SocketAddr,
    state: Arc<State>,
    presence: Mutex<Presence>,
}

/// What the connections share.
#[derive(Debug, Default)]
struct State {
    content: Mutex<Content>,
    script: Script,
    protection: Mutex<Protection>,
    requests: watch::Sender<Vec<Recorded>>,
    sent: Arc<AtomicU64>,
}

/// Whom the registry serves.
#[derive(Debug, Clone, Default)]
enum Protection {
    #[default]
    Open,
    Basic {
        username: String,
        password: String,
    },
    Bearer(Arc<TokenServer>),
}

#[derive(Debug)]
enum Presence {
    /// Connections and listener end with it.
    Up(Serving),
    /// The port is kept, so that nobody else gets it, but nothing listens: connections are refused.
    Down(TcpSocket),
    /// Between the two.
    Changing,
}

impl ScriptedUpstream {
    /// Starts an empty registry on a free loopback port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        let presence = Mutex::new(serve(listener, &state));
        Self { address, state, presence }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) async fn down(&self) {
        let presence = std::mem::replace(&mut *self.presence.lock(), Presence::Changing);
        if let Presence::Up(serving) = presence {
            within("the end of all connections", serving.end()).await;
        }
        let mut kept = None;
        super::eventually("the port of a stopped upstream can be kept", async || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("SO_REUSEADDR");
            kept = socket.bind(self.address).is_ok().then_some(socket);
            kept.is_some()
        })
        .await;
        *self.presence.lock() = kept.map_or(Presence::Changing, Presence::Down);
    }

    /// Listens again, on the same port.
    pub(crate) fn up(&self) {
        let mut presence = self.presence.lock();
        match std::mem::replace(&mut *presence, Presence::Changing) {
            Presence::Down(socket) => {
                let listener = socket.listen(1024).expect("the kept port can be listened on");
                *presence = serve(listener, &self.state);
            }
            other => *presence = other,
        }
    }

    /// Puts `package` into `repository` under `tag`, with all it points at.
    pub(crate) fn push(&self, repository: &str, tag: &str, package: &Package) {
        let mut content = self.state.content.lock();
        content.push(repository, package);
        content.tag(repository, tag, *package.digest());
    }

    /// Puts `package` into `repository` without a tag.
    pub(crate) fn push_untagged(&self, repository: &str, package: &Package) {
        self.state.content.lock().push(repository, package);
    }

    pub(crate) fn push_blob(&self, repository: &str, blob: &Blob) {
        self.state.content.lock().push_blob(repository, blob);
    }

    pub(crate) fn untag(&self, repository: &str, tag: &str) {
        self.state.content.lock().untag(repository, tag);
    }

    /// Forgets one blob or manifest.
    pub(crate) fn remove(&self, repository: &str, digest: &Digest) {
        self.state.content.lock().remove(repository, digest);
    }

    /// Answers without credentials are answers again.
    pub(crate) fn open(&self) {
        *self.state.protection.lock() = Protection::Open;
    }

    /// Answers without these credentials are 401 with a Basic challenge.
    pub(crate) fn require_basic(&self, username: &str, password: &str) {
        let (username, password) = (username.to_owned(), password.to_owned());
        *self.state.protection.lock() = Protection::Basic { username, password };
    }

    /// Answers without a token of `tokens` are 401 with a Bearer challenge.
    pub(crate) fn require_tokens(&self, tokens: &Arc<TokenServer>) {
        *self.state.protection.lock() = Protection::Bearer(Arc::clone(tokens));
    }

    /// From now on, `requests` meet `fault`.
    pub(crate) fn fault(&self, requests: Requests, fault: Fault) {
        self.faults(requests, [fault]);
    }

    /// From now on, `requests` meet all of `faults`.
    pub(crate) fn faults(&self, requests: Requests, faults: impl IntoIterator<Item = Fault>) {
        self.state.script.add(requests, faults.into_iter().collect());
    }

    /// From now on, the bodies of `requests` stand still before byte `at` until the gate opens.
    pub(crate) fn hold(&self, requests: Requests, at: u64) -> Gate {
        let gate = Gate::new();
        self.fault(requests, Fault::HoldAt(at, gate.clone()));
        gate
    }

    /// From now on, the heads of `requests` wait until the gate opens.
    pub(crate) fn hold_head(&self, requests: Requests) -> Gate {
        let gate = Gate::new();
        self.fault(requests, Fault::HoldHead(gate.clone()));
        gate
    }

    /// Ends all faults. Answers under way keep theirs.
    pub(crate) fn heal(&self) {
        self.state.script.clear();
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.state.requests.borrow().clone()
    }

    /// How many requests of `choice` arrived. Its turns (`once`, `after`) do not count here.
    pub(crate) fn count_of(&self, choice: &Requests) -> usize {
        self.state.requests.borrow().iter().filter(|request| choice.matches(request)).count()
    }

    pub(crate) fn count(&self, method: &Method, kind: Kind) -> usize {
        self.state.requests.borrow().iter().filter(|request| request.method == *method && request.kind == kind).count()
    }

    /// How many GETs for the blob arrived.
    pub(crate) fn blob_gets(&self, digest: &Digest) -> usize {
        self.count_of(&Requests::blob(digest).get())
    }

    /// Waits until `count` requests of `choice` arrived.
    pub(crate) async fn received(&self, choice: &Requests, count: usize) {
        let mut requests = self.state.requests.subscribe();
        let arrived = requests.wait_for(|all| all.iter().filter(|request| choice.matches(request)).count() >= count);
        within("a request's arrival at the upstream", arrived).await.expect("the upstream holds the sender");
    }

    /// Bytes of bodies handed to connections so far.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }
}

/// Listens until the guard goes.
fn serve(listener: TcpListener, state: &Arc<State>) -> Presence {
    let state = Arc::clone(state);
    Presence::Up(server::serve(listener, move |request| answer::answer(Arc::clone(&state), request)))
}
