//! Restricts the connections of builds to public IP addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use url::{Host, Url};

/// Whether an address is globally reachable and embeds no address that isn't, by the registries
/// <https://www.iana.org/assignments/iana-ipv4-special-registry> and
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // This network, loopback, multicast, reserved.
        (0 | 127 | 224.., ..) => true,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => true,
        // Carrier-grade NAT, link-local (cloud metadata services).
        (100, 64..=127, _) | (169, 254, _) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, ..] = address.segments();
    // An embedded IPv4 address (NAT64, 6to4).
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    let [.., high, low] = address.segments();
    match (a, b) {
        // NAT64 (RFC 6052), and 6to4 (RFC 3056).
        (0x64, 0xff9b) if (c, d) == (0, 0) => embedded(high, low),
        (0x2002, high) => embedded(high, c),
        // Teredo and other protocol assignments, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) => false,
        // Documentation (RFC 9637).
        (0x3fff, 0..=0xfff) => false,
        // Global unicast is 2000::/3, which excludes mapped, unique local, link-local and multicast.
        _ => a & 0xe000 == 0x2000,
    }
}

/// Resolves a host to its addresses, public or not.
pub(crate) async fn resolve(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(match host {
        Host::Domain(name) => lookup_host((name.as_str(), port)).await?.collect(),
        Host::Ipv4(address) => vec![(*address, port).into()],
        Host::Ipv6(address) => vec![(*address, port).into()],
    })
}

/// Resolves a host to its public addresses; fails if it has none.
pub(crate) async fn resolve_public(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut public = resolve(host, port).await?;
    public.retain(|address| is_public(address.ip()));
    if public.is_empty() { Err(not_public(host)) } else { Ok(public) }
}

/// Checks an IP address in a URL, which bypasses the DNS resolver.
pub(crate) fn check_ip_literal(url: &Url) -> io::Result<()> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) => return Ok(()),
        None => return Err(io::Error::other("the URL has no host")),
    };
    if is_public(address) { Ok(()) } else { Err(not_public(address)) }
}

fn not_public(host: impl std::fmt::Display) -> io::Error {
    let message = format!("{host} is not a public address; builds may not connect to it");
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

/// A DNS resolver for reqwest that returns only public addresses, so that the checked address is used.
pub(crate) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = resolve_public(&Host::Domain(name.as_str().to_owned()), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates arbitrary addresses, many of them near special-purpose ranges.
    fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
        let special = [
            [0, 0, 0, 0],
            [10, 0, 0, 0],
            [100, 64, 0, 0],
            [127, 0, 0, 0],
            [169, 254, 169, 254],
            [172, 16, 0, 0],
            [192, 168, 0, 0],
            [198, 18, 0, 0],
            [224, 0, 0, 0],
        ];
        let near = (prop::sample::select(special.to_vec()), any::<u16>()).prop_map(|([a, b, c, d], low)| {
            let [high, low] = low.to_be_bytes();
            Ipv4Addr::new(a, b, c ^ high, d ^ low)
        });
        prop_oneof![any::<u32>().prop_map(Ipv4Addr::from), near]
    }

    /// An IPv6 address with an IPv4 address embedded at a segment.
    fn wrapped(mut segments: [u16; 8], at: usize, inner: Ipv4Addr) -> IpAddr {
        let bits = u32::from(inner);
        segments[at] = (bits >> 16) as u16;
        segments[at + 1] = bits as u16;
        Ipv6Addr::from(segments).into()
    }

    proptest! {
        #[test]
        fn encapsulation_does_not_make_an_address_public(inner in any_v4(), other in any::<[u16; 8]>()) {
            let public = is_public(inner.into());
            prop_assert_eq!(is_public(wrapped([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 6, inner)), public);
            let [.., a, b, c, d, e] = other;
            prop_assert_eq!(is_public(wrapped([0x2002, 0, 0, a, b, c, d, e], 1, inner)), public);
            for (prefix, at) in [
                // Local NAT64 (RFC 8215), IPv4-mapped, -translated and -compatible.
                ([0x64, 0xff9b, 1, a, b, c, 0, 0], 6),
                ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 6),
                ([0, 0, 0, 0, 0, 0xffff, 0, 0], 6),
                ([0, 0, 0, 0, 0xffff, 0, 0, 0], 6),
                ([0, 0, 0, 0, 0, 0, 0, 0], 6),
                // Teredo (RFC 4380): the server's address, and the client's with inverted bits.
                ([0x2001, 0, 0, 0, a, b, c, d], 2),
                ([0x2001, 0, a, b, c, d, 0, 0], 6),
            ] {
                prop_assert!(!is_public(wrapped(prefix, at, inner)), "{prefix:x?} {inner}");
                let inverted = Ipv4Addr::from(!u32::from(inner));
                prop_assert!(!is_public(wrapped(prefix, at, inverted)), "{prefix:x?} {inverted}");
            }
        }
    }

    #[test]
    fn special_purpose_addresses_are_not_public() {
        for address in
            ["1.1.1.1", "142.250.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "192.0.1.1", "2606:4700::1"]
        {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn private_hosts_are_not_resolved() {
        for host in ["localhost", "127.0.0.1", "[::1]", "169.254.169.254"] {
            let error = resolve_public(&Host::parse(host).unwrap(), 80).await.unwrap_err();
            assert!(error.to_string().contains("is not a public address"), "{error}");
        }
    }

    #[test]
    fn ip_literals_are_checked_in_any_notation() {
        for url in ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://[::ffff:7f00:1]/"] {
            check_ip_literal(&Url::parse(url).unwrap()).unwrap_err();
        }
        check_ip_literal(&Url::parse("https://proxy.golang.org/").unwrap()).unwrap();
    }
}
