//! Which addresses are one client's, as far as bounds per address are concerned.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one address: an IPv4 address, also where it comes mapped into IPv6, and of
/// IPv6 the network of 64 bits, since one client has all addresses of it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one() {
        let network = |text: &str| super::network(text.parse().unwrap_or(IpAddr::from([0; 4])));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
