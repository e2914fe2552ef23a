//! Who may come in: connections at once, of all clients and of one address.
//!
//! It is decided right behind the accept, before any handshake, and who is one too many is
//! closed at once and without a word: an answer would have to wait for the CONNECT, and a place
//! to wait in is what there is no more of.

use hook::Seldom;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::limits::LiveLimits;

/// Counts connections while they live. The table of addresses has an entry for each address that
/// has a connection, so it is bounded by them.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connections: AtomicUsize,
    by_network: Mutex<HashMap<IpAddr, usize>>,
    /// Refused because of `limits.connections`.
    pub full: AtomicU64,
    /// Refused because of `limits.connections_per_ip`.
    pub crowded: AtomicU64,
    full_line: Seldom,
    crowded_line: Seldom,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    network: IpAddr,
}

impl Admission {
    /// Connections that live now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// A place for one more connection; `None` where it is one too many.
    pub fn enter(self: &Arc<Self>, address: SocketAddr, limits: &LiveLimits) -> Option<Place> {
        let network = hook::network(address.ip());
        // The place first: dropped, it takes back what it counted.
        let others = self.connections.fetch_add(1, Ordering::AcqRel);
        let neighbours = {
            let mut by_network = self.by_network.lock();
            let count = by_network.entry(network).or_default();
            *count += 1;
            *count - 1
        };
        let place = Place { admission: self.clone(), network };
        if others >= limits.connections() {
            self.full.fetch_add(1, Ordering::Relaxed);
            if let Some(times) = self.full_line.note() {
                tracing::warn!(%address, times, "connections refused: there are as many as limits.connections or the system allows");
            }
            return None;
        }
        if neighbours >= limits.connections_per_ip() {
            self.crowded.fetch_add(1, Ordering::Relaxed);
            if let Some(times) = self.crowded_line.note() {
                tracing::warn!(
                    %address,
                    times,
                    "connections refused: limits.connections_per_ip is reached by an address"
                );
            }
            return None;
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_network = self.admission.by_network.lock();
        if let Some(count) = by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                by_network.remove(&self.network);
            }
        }
        drop(by_network);
        self.admission.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Limits;

    #[test]
    fn places_are_counted_by_address_and_given_back() {
        let limits = Limits { connections: 3, connections_per_ip: Some(2), ..Limits::default() };
        let limits = LiveLimits::new(&limits);
        let admission = Arc::new(Admission::default());
        let enter = |address: &str| admission.enter(address.parse().unwrap(), &limits);
        let first = enter("192.0.2.1:1").unwrap();
        let _second = enter("[::ffff:192.0.2.1]:2").unwrap();
        assert!(enter("192.0.2.1:3").is_none(), "two of this address");
        let _third = enter("[2001:db8::1]:1").unwrap();
        assert!(enter("192.0.2.2:1").is_none(), "three of all");
        assert_eq!(admission.connections(), 3, "what is refused keeps no place");
        drop(first);
        let _fourth = enter("[2001:db8::2]:1").unwrap();
        assert_eq!(admission.by_network.lock().len(), 2, "a network is one entry");
        assert_eq!(admission.full.load(Ordering::Relaxed), 1);
        assert_eq!(admission.crowded.load(Ordering::Relaxed), 1);
        drop((_second, _third, _fourth));
        assert!(admission.by_network.lock().is_empty());
        assert_eq!(admission.connections(), 0);
    }
}
