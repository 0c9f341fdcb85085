//! A name service that answers as it is told.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::upstream::network::{Found, Lookup};

/// What is said about a name.
#[derive(Debug, Clone)]
pub(in crate::upstream) enum Says {
    Addresses(Vec<IpAddr>),
    /// As when a name server is out of order.
    Fails,
    /// Nothing, until [`Script::release`].
    Hangs,
    /// The program that asks breaks down.
    Panics,
}

impl Says {
    pub(in crate::upstream) fn addresses<'a>(addresses: impl IntoIterator<Item = impl AsRef<str> + 'a>) -> Self {
        Self::Addresses(addresses.into_iter().map(|address| address.as_ref().parse().unwrap()).collect())
    }
}

/// Names, and how often each was asked for. What is not in it does not exist.
#[derive(Debug)]
pub(in crate::upstream) struct Script {
    names: Mutex<HashMap<String, Says>>,
    asked: Mutex<Vec<String>>,
    released: watch::Sender<bool>,
}

impl Script {
    pub(in crate::upstream) fn of(names: impl IntoIterator<Item = (&'static str, Says)>) -> Arc<Self> {
        let names = names.into_iter().map(|(name, says)| (name.to_owned(), says)).collect();
        Arc::new(Self { names: Mutex::new(names), asked: Mutex::default(), released: watch::Sender::new(false) })
    }

    /// From now on, `name` means this.
    pub(in crate::upstream) fn say(&self, name: &str, says: Says) {
        self.names.lock().insert(name.to_owned(), says);
    }

    /// How often `name` was asked for.
    pub(in crate::upstream) fn asked(&self, name: &str) -> usize {
        self.asked.lock().iter().filter(|asked| *asked == name).count()
    }

    /// Ends every question that hangs, without an answer.
    pub(in crate::upstream) fn release(&self) {
        self.released.send_replace(true);
    }
}

impl Lookup for Script {
    fn lookup(&self, name: &str) -> Found {
        let name = name.to_ascii_lowercase();
        let says = self.names.lock().get(&name).cloned();
        self.asked.lock().push(name);
        let mut released = self.released.subscribe();
        Box::pin(async move {
            match says {
                Some(Says::Addresses(addresses)) => Ok(addresses),
                Some(Says::Hangs) => {
                    let _ = released.wait_for(|released| *released).await;
                    Err(io::Error::other("Temporary failure in name resolution"))
                }
                Some(Says::Panics) => panic!("as the test wants it"),
                Some(Says::Fails) => Err(io::Error::other("Temporary failure in name resolution")),
                None => Err(io::Error::other("Name or service not known")),
            }
        })
    }
}
