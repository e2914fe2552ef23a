//! The devices that are known, in memory: what every CONNECT and PUBLISH is answered from.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use tokio::time::Instant;

use crate::{
    catalog::Site,
    device::{Device, OldToken},
    link::Link,
    secret::TokenHash,
    transfer::Transfer,
};

/// See [the module](self).
#[derive(Default)]
pub struct Registry {
    devices: DashMap<Arc<str>, Arc<Device>>,
    /// Registered tokens, by their keyed hash.
    tokens: DashMap<TokenHash, Arc<str>>,
    /// Living connections that may be devices, by connection number.
    links: DashMap<u64, Arc<Link>>,
    unregistered: AtomicUsize,
}

/// What a device that is forgotten loses at once; all else of it goes with the last who holds it.
pub struct Forgotten {
    registered: bool,
    token: Option<TokenHash>,
    old_token: Option<OldToken>,
    transfer: Option<Arc<Transfer>>,
}

impl Forgotten {
    fn tokens(&self) -> impl Iterator<Item = TokenHash> + use<> {
        self.token.into_iter().chain(self.old_token.map(|old| old.hash))
    }
}

impl Registry {
    pub fn get(&self, id: &str) -> Option<Arc<Device>> {
        self.devices.get(id).map(|device| Arc::clone(&device))
    }

    /// Every stored device, in no order.
    pub fn all(&self) -> Vec<Arc<Device>> {
        self.devices.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// Adds what the database held.
    pub fn load(&self, device: Device) {
        let state = device.state.lock();
        for hash in state.token.iter().chain(state.old_token.iter().map(|old| &old.hash)) {
            self.tokens.insert(*hash, Arc::clone(&device.id));
        }
        let registered = state.registered;
        drop(state);
        if !registered {
            self.unregistered.fetch_add(1, Ordering::Relaxed);
        }
        self.devices.insert(Arc::clone(&device.id), Arc::new(device));
    }

    /// A user that is a device. Versions before the third schema did not register it.
    pub fn register_user(&self, name: &str) {
        let (device, fresh) = self.get_or_insert(&name.into());
        let mut state = device.state.lock();
        if !state.registered {
            state.registered = true;
            self.registered();
        } else if !fresh {
            return;
        }
        device.dirty.store(true, Ordering::Relaxed);
    }

    /// The device of this name, made where there is none. Past `limit` unregistered ones those
    /// that were idle longest are forgotten first (rule 5) and returned beside it; `None` where
    /// all of them are connected, so that nothing can be forgotten.
    pub fn get_or_create(
        &self,
        id: &Arc<str>,
        limit: usize,
    ) -> Option<(Arc<Device>, Vec<Arc<Device>>)> {
        if let Some(device) = self.get(id) {
            return Some((device, Vec::new()));
        }
        let mut forgotten = Vec::new();
        if self.unregistered.load(Ordering::Relaxed) >= limit {
            forgotten = self.forget_idle(limit);
            if self.unregistered.load(Ordering::Relaxed) >= limit {
                return None;
            }
        }
        let device = match self.devices.entry(Arc::clone(id)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                self.unregistered.fetch_add(1, Ordering::Relaxed);
                let device = Arc::new(Device::new(Arc::clone(id), true));
                entry.insert(Arc::clone(&device));
                device
            }
        };
        Some((device, forgotten))
    }

    /// Makes room for one, or for a hundredth of a large limit so that a stream of new names
    /// does not look at every device each time.
    fn forget_idle(&self, limit: usize) -> Vec<Arc<Device>> {
        let excess = self.unregistered.load(Ordering::Relaxed).saturating_sub(limit) + 1;
        let room = excess.max(limit / 100);
        let mut idle: Vec<_> = self
            .all()
            .into_iter()
            .filter(|device| {
                let state = device.state.lock();
                !state.registered && state.links.is_empty() && state.pinning.is_none()
            })
            .collect();
        idle.sort_by_key(|device| device.idle_order());
        idle.truncate(room);
        idle.retain(|device| {
            let mut state = device.state.lock();
            // It may have come back, or been registered, since it was looked at.
            let forget = !state.registered && state.links.is_empty() && state.pinning.is_none();
            if forget {
                state.gone = true;
                self.devices.remove(&device.id);
                self.unregistered.fetch_sub(1, Ordering::Relaxed);
            }
            forget
        });
        idle
    }

    /// Whether any device is registered.
    pub fn has_registered(&self) -> bool {
        self.devices.len() > self.unregistered.load(Ordering::Relaxed)
    }

    /// An unregistered device became registered.
    pub fn registered(&self) {
        self.unregistered.fetch_sub(1, Ordering::Relaxed);
    }

    /// A registered device is no more than seen.
    pub fn unregistered(&self) {
        self.unregistered.fetch_add(1, Ordering::Relaxed);
    }

    /// The device of this id, or a new one that counts as registered and has no token yet. The
    /// second value is whether it is new.
    pub fn get_or_insert(&self, id: &Arc<str>) -> (Arc<Device>, bool) {
        match self.devices.entry(Arc::clone(id)) {
            Entry::Occupied(entry) => (Arc::clone(entry.get()), false),
            Entry::Vacant(entry) => {
                let device = Arc::new(Device::new(Arc::clone(id), true));
                {
                    let mut state = device.state.lock();
                    (state.registered, state.away_since) = (true, Some(Instant::now()));
                }
                entry.insert(Arc::clone(&device));
                (device, true)
            }
        }
    }

    /// Takes a device out, with its tokens. What still holds it writes nothing of it any more.
    /// `None` where an offer is being written for it, or where it is forgotten already.
    pub fn forget(&self, device: &Device) -> Option<Forgotten> {
        let mut state = device.state.lock();
        if state.gone || state.pinning.is_some() {
            return None;
        }
        state.gone = true;
        let forgotten = Forgotten {
            registered: std::mem::replace(&mut state.registered, false),
            token: state.token.take(),
            old_token: state.old_token.take(),
            transfer: state.transfer.take(),
        };
        for hash in forgotten.tokens() {
            self.tokens.remove(&hash);
        }
        self.devices.remove(&device.id);
        if !forgotten.registered {
            self.unregistered.fetch_sub(1, Ordering::Relaxed);
        }
        Some(forgotten)
    }

    /// Takes that back.
    pub fn remember(&self, device: &Arc<Device>, forgotten: Forgotten) {
        for hash in forgotten.tokens() {
            self.tokens.insert(hash, Arc::clone(&device.id));
        }
        {
            let mut state = device.state.lock();
            let Forgotten { registered, token, old_token, transfer } = forgotten;
            if !registered {
                self.unregistered.fetch_add(1, Ordering::Relaxed);
            }
            (state.registered, state.token, state.old_token) = (registered, token, old_token);
            (state.transfer, state.gone) = (transfer, false);
        }
        // One that came under its name meanwhile was not registered, and asks the registry again.
        if let Some(other) = self.devices.insert(Arc::clone(&device.id), Arc::clone(device)) {
            let mut state = other.state.lock();
            if !std::mem::replace(&mut state.gone, true) && !state.registered {
                self.unregistered.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whose token this is.
    pub fn token_owner(&self, hash: &TokenHash) -> Option<Arc<str>> {
        self.tokens.get(hash).map(|id| Arc::clone(&id))
    }

    pub fn add_token(&self, hash: TokenHash, id: Arc<str>) {
        self.tokens.insert(hash, id);
    }

    pub fn remove_token(&self, hash: &TokenHash) {
        self.tokens.remove(hash);
    }

    pub fn add_link(&self, link: &Arc<Link>) {
        self.links.insert(link.client.connection, Arc::clone(link));
    }

    pub fn remove_link(&self, connection: u64) {
        self.links.remove(&connection);
    }

    /// Every living connection that may be a device.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.links.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// What the devices say about the site.
    pub fn site(&self) -> Site {
        let mut site = Site::default();
        for device in self.all() {
            let state = device.state.lock();
            site.models.extend(state.model.clone());
            site.titles.extend(state.title.clone());
        }
        site
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 5, also among those that were seen within one second, or before the last start.
    #[test]
    fn the_longest_idle_is_forgotten_first() {
        let registry = Registry::default();
        let device = |id: &str, limit| registry.get_or_create(&id.into(), limit).unwrap();
        let all = ["c", "a", "e", "b", "d"];
        let devices: Vec<_> = all.iter().map(|id| device(id, 5).0).collect();
        let order = [3, 0, 4, 2];
        order.iter().for_each(|at| devices[*at].touch());
        // The second one was not seen since the start.
        for (number, at) in [1].iter().chain(&order).enumerate() {
            let forgotten = device(&format!("new-{number}"), 5).1;
            let names: Vec<&str> = forgotten.iter().map(|device| &*device.id).collect();
            assert_eq!(names, [all[*at]], "{number}");
            registry.get(&format!("new-{number}")).unwrap().touch();
        }
    }
}
