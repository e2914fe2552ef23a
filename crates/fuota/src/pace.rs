//! Blocks that take turns under a cap on bytes a second (rule 20). None is ever dropped.
//!
//! Which buckets a connection pays into stands in its own window, behind its own lock; where
//! nothing is capped there are none, and a block meets nothing that another connection uses.
//! Where there are some, it meets their atomic numbers.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use tokio::time::Instant;

use crate::{
    device::Device,
    engine::Engine,
    limits::Bucket,
    link::{Lane, Link, LinkState, Wanted},
    timers::Event,
};

/// The shared buckets that there are. Those of groups and deployments live as long as somebody
/// pays into them.
#[derive(Default)]
pub struct Buckets {
    site: Option<Arc<Bucket>>,
    groups: HashMap<String, Weak<Bucket>>,
    deployments: HashMap<i64, Weak<Bucket>>,
}

fn shared<K: std::hash::Hash + Eq>(
    buckets: &mut HashMap<K, Weak<Bucket>>,
    key: K,
    rate: u64,
) -> Arc<Bucket> {
    if let Some(bucket) = buckets.get(&key).and_then(Weak::upgrade) {
        bucket.set(rate);
        return bucket;
    }
    buckets.retain(|_, bucket| bucket.strong_count() > 0);
    let bucket = Arc::new(Bucket::new(rate));
    buckets.insert(key, Arc::downgrade(&bucket));
    bucket
}

impl Engine {
    /// The buckets that a device's blocks are paid into, where this deployment is what it is
    /// given. `groups` are the device's.
    fn buckets_for(&self, groups: &[String], deployment: Option<i64>) -> Vec<Arc<Bucket>> {
        let settings = self.settings();
        let own = deployment.and_then(|id| {
            let fleet = self.fleet.lock();
            Some((id, fleet.deployments.get(&id)?.conditions.limits.bytes_per_second?))
        });
        let mut found = Vec::new();
        let mut buckets = self.buckets.lock();
        match (settings.limits.bytes_per_second, &buckets.site) {
            (None, _) => buckets.site = None,
            (Some(rate), Some(site)) => site.set(rate),
            (Some(rate), None) => buckets.site = Some(Arc::new(Bucket::new(rate))),
        }
        found.extend(buckets.site.clone());
        if !settings.group_limits.is_empty() {
            for name in groups {
                let limits = settings.group_limits.get(name);
                if let Some(rate) = limits.and_then(|limits| limits.bytes_per_second) {
                    found.push(shared(&mut buckets.groups, name.clone(), rate));
                }
            }
        }
        if let Some((id, rate)) = own {
            found.push(shared(&mut buckets.deployments, id, rate));
        }
        drop(buckets);
        found.extend(settings.device_bytes_per_second.map(|rate| Arc::new(Bucket::new(rate))));
        found
    }

    /// What the blocks of this connection are paid into from now on. Nothing may be locked by
    /// the caller.
    pub fn cap_link(self: &Arc<Self>, link: &Arc<Link>, device: &Device) {
        let groups = device.state.lock().groups.clone();
        let deployment =
            link.state.lock().lane.as_ref().and_then(|lane| lane.transfer.pin.deployment);
        let buckets = self.buckets_for(&groups, deployment);
        let state = &mut *link.state.lock();
        // A window that was never used stays without memory.
        if buckets.is_empty() && state.window.buckets.is_empty() {
            return;
        }
        state.window.buckets = buckets;
        // What waits for its turn under the old caps may have it earlier.
        if let Some(lane) = state.lane.clone().filter(|_| state.window.turn.take().is_some()) {
            self.take_turns(link, state, &lane);
        }
    }

    /// The configuration was read again: for running transfers as well.
    pub fn set_caps(self: &Arc<Self>) {
        for link in self.registry.links() {
            let device = link.state.lock().device.clone();
            if let Some(device) = device {
                self.cap_link(&link, &device);
            }
        }
    }

    /// Answers an admitted request when its turn comes, which is now where nothing is capped.
    pub fn in_turn(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
    ) {
        if state.window.buckets.is_empty() && state.window.paced.is_empty() {
            return self.answer(link, state, lane, wanted);
        }
        state.window.paced.push_back(wanted);
        if state.window.turn.is_none() {
            self.take_turns(link, state, lane);
        }
    }

    /// Sends what may be sent, and sets the timer for the next.
    fn take_turns(self: &Arc<Self>, link: &Arc<Link>, state: &mut LinkState, lane: &Arc<Lane>) {
        while let Some(next) = state.window.paced.front() {
            let Some((_, length)) = lane.transfer.pin.range(next.index, next.size) else {
                state.window.paced.pop_front();
                continue;
            };
            let now = Instant::now();
            let due = state.window.buckets.iter().map(|bucket| bucket.reserve(length, now)).max();
            if let Some(due) = due.filter(|due| *due > now) {
                state.window.turn = Some(due);
                return self.timers.at(due, Event::Paced(Arc::downgrade(link)));
            }
            self.send_next(link, state, lane);
        }
    }

    fn send_next(self: &Arc<Self>, link: &Arc<Link>, state: &mut LinkState, lane: &Arc<Lane>) {
        if let Some(wanted) = state.window.paced.pop_front() {
            self.answer(link, state, lane, wanted);
        }
    }

    /// The timer for a connection's next block is due.
    pub fn turn_come(self: &Arc<Self>, link: &Arc<Link>) {
        let state = &mut *link.state.lock();
        // A timer of an image before this one is nobody's.
        if state.closed || state.window.turn.is_none_or(|turn| turn > Instant::now()) {
            return;
        }
        let Some(lane) = state.lane.clone() else { return };
        state.window.turn = None;
        self.send_next(link, state, &lane);
        self.take_turns(link, state, &lane);
    }
}
