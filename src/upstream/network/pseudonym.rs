//! How this process calls itself in `Via` (RFC 9110 section 7.6.3), to know its own requests when they come back.
//!
//! An upstream that is Weir itself, by its address, behind a load balancer or after a redirect, would wait for its own
//! answer. The name is made up at start: two Weirs in a row are no loop.

use std::hash::{BuildHasher, Hasher, RandomState};

use http::header::VIA;
use http::{HeaderMap, HeaderValue};

/// A name in `Via`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudonym(String);

impl Pseudonym {
    /// A name that no other process has.
    pub(super) fn random() -> Self {
        // The keys of each state are random.
        let number = RandomState::new().build_hasher().finish();
        Self(format!("weir-{number:016x}"))
    }

    /// The header of our requests.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(format!("1.1 {}", self.0)).ok()
    }

    /// Whether a request with these headers has been through this process.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
        // protocol, name, perhaps a comment
        values
            .flat_map(|value| value.split(','))
            .any(|hop| hop.split_ascii_whitespace().nth(1) == Some(self.0.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_requests_are_known_among_the_hops_of_others() {
        let own = Pseudonym::random();
        let via = |value: &str| HeaderMap::from_iter([(VIA, HeaderValue::try_from(value).unwrap())]);
        let header = own.header().unwrap();
        assert!(own.is_in(&HeaderMap::from_iter([(VIA, header.clone())])));
        assert!(own.is_in(&via(&format!("1.0 fred, {},1.1 nginx (x)", header.to_str().unwrap()))));
        assert!(!own.is_in(&HeaderMap::new()));
        assert!(!own.is_in(&via("1.1 weir, 1.1")));
        assert!(!own.is_in(&HeaderMap::from_iter([(VIA, Pseudonym::random().header().unwrap())])));
    }
}
