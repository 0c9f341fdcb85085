//! Which addresses may be dialled on an upstream's say-so: a pure rule.
//!
//! Redirects and token servers are named by the upstream, so they could point Weir at its own network. Addresses in
//! URLs are checked before a request, those of names in the `resolver`, as they are dialled. What the operator
//! configured is not checked at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// An address that is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Leads to `{host}`, which is on a private, loopback or link-local address; set `allow_private: true` on this upstream if its redirects and token server may be there"
)]
pub(crate) struct AddressRefused {
    host: String,
}

impl AddressRefused {
    /// The refusal to dial `host`.
    pub(crate) fn of(host: &str) -> Self {
        Self { host: host.to_owned() }
    }
}

/// Whether `address` is on the public internet.
pub(crate) fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

/// The special-purpose ranges of RFC 6890 and its successors, and one metadata service that looks like any host.
#[expect(clippy::unnested_or_patterns, reason = "one range per line")]
fn is_global_v4(address: Ipv4Addr) -> bool {
    /// Azure's "wire server" answers every virtual machine here.
    const AZURE_WIRE_SERVER: [u8; 4] = [168, 63, 129, 16];
    !matches!(
        address.octets(),
        [0 | 10 | 127, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..]
            | AZURE_WIRE_SERVER
    )
}

/// Only `2000::/3` is given out as global unicast; within it, and beside it, addresses that embed an IPv4 address are
/// as good as that one.
fn is_global_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_global_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-mapped, and NAT64 (RFC 6052), through which an IPv6-only cluster reaches all of IPv4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            embedded(high, low)
        }
        // IETF protocol assignments with Teredo, and the two documentation ranges.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

/// Refuses `url` if its host is written as an address that is not public: addresses never reach the resolver. The
/// `url` crate has turned `0x7f.1`, `2130706433` and their like into plain addresses by now.
pub(crate) fn check_literal(url: &Url) -> Result<(), AddressRefused> {
    let allowed = match url.host() {
        Some(Host::Ipv4(address)) => is_global(address.into()),
        Some(Host::Ipv6(address)) => is_global(address.into()),
        Some(Host::Domain(_)) | None => true,
    };
    if allowed { Ok(()) } else { Err(AddressRefused::of(url.host_str().unwrap_or_default())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_purpose_addresses_are_not_global() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.9.9.9",
            "168.63.129.16",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_global(address.parse().unwrap()), "{address} passed");
        }
    }

    #[test]
    fn public_addresses_are_global() {
        for address in [
            "1.1.1.1",
            "44.205.64.79",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.169.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::",
            "2600:1f18::1",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
        ] {
            assert!(is_global(address.parse().unwrap()), "{address} refused");
        }
    }

    #[test]
    fn every_spelling_of_a_literal_is_checked() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://017700000001/",
            "http://[::1]:8080/",
            "http://[::ffff:7f00:1]/",
            "https://169.254.169.254/latest/meta-data/",
        ] {
            let refused = check_literal(&url.parse().unwrap()).unwrap_err();
            assert!(refused.to_string().contains("allow_private"), "{refused}");
        }
        assert_eq!(check_literal(&"https://1.1.1.1/".parse().unwrap()), Ok(()));
        assert_eq!(check_literal(&"https://localhost/".parse().unwrap()), Ok(()), "names are checked when resolved");
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_like_the_plain_one(bits in any::<u32>()) {
            let plain = Ipv4Addr::from(bits);
            prop_assert_eq!(is_global(plain.into()), is_global(plain.to_ipv6_mapped().into()));
        }
    }
}
