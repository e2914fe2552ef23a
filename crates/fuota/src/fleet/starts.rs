//! Whose transfer is under way, and who waits until another one may begin (rule 20).
//!
//! A device has its place from the moment at which it is offered an image until that transfer
//! has ended or the device is gone; the caps of [`Limits`] are on these places and on how fast
//! they are given. Who finds none waits in the queue of the cap that held it back, the longest
//! first, and is considered anew when that cap has room.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::deployment::Deployment;
use crate::{
    limits::{Limits, Rate},
    settings::Settings,
};

/// What holds a start back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cap {
    /// Transfers of the site, of a group, of a deployment.
    Site,
    Group(String),
    Deployment(i64),
    /// New starts of the site, of a deployment.
    SiteRate,
    DeploymentRate(i64),
}

/// See [the module](self). Bounded by the devices and the caps that are known.
#[derive(Default)]
pub struct Starts {
    running: HashMap<Arc<str>, Running>,
    by_group: HashMap<String, u32>,
    by_deployment: HashMap<i64, u32>,
    site: Rate,
    rates: HashMap<i64, Rate>,
    waiting: HashMap<Cap, Queue>,
    /// When the timer for a rate is due.
    pub armed: Option<Instant>,
}

struct Running {
    deployment: i64,
    groups: Vec<String>,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<Arc<str>>,
    names: HashSet<Arc<str>>,
}

impl Starts {
    /// What keeps one more transfer of this deployment from beginning, and why.
    pub fn blocked(
        &self,
        settings: &Settings,
        deployment: &Deployment,
        device: &str,
        groups: &[String],
        now: Instant,
    ) -> Option<(Cap, String)> {
        let id = deployment.id;
        let own = &deployment.conditions.limits;
        if settings.limits.is_none() && settings.group_limits.is_empty() && own.is_none() {
            return None;
        }
        // What is under way for it already gives its place to this.
        let own_place = self.running.get(device).map(|running| running.deployment);
        let mut caps = Vec::new();
        if own_place.is_none() {
            caps.push(Cap::Site);
            if !settings.group_limits.is_empty() {
                caps.extend(groups.iter().cloned().map(Cap::Group));
            }
        }
        if own_place != Some(id) {
            caps.push(Cap::Deployment(id));
        }
        caps.extend([Cap::SiteRate, Cap::DeploymentRate(id)]);
        let cap = caps.into_iter().find(|cap| !self.has_room(cap, settings, Some(own), now))?;
        let why = match &cap {
            Cap::Site => format!(
                "{} transfers are under way, and fuota.limits.transfers allows no more",
                self.running.len()
            ),
            Cap::Group(name) => format!(
                "{} transfers are under way in group {name}, and fuota.limits.groups allows no more",
                self.by_group.get(name).copied().unwrap_or(0)
            ),
            Cap::Deployment(_) => format!(
                "{} transfers of deployment {id} are under way, and its limits allow no more",
                self.by_deployment.get(&id).copied().unwrap_or(0)
            ),
            Cap::SiteRate => format!(
                "transfers begin one after the other, {} a minute (fuota.limits.starts_per_minute)",
                settings.limits.starts_per_minute.unwrap_or(0)
            ),
            Cap::DeploymentRate(_) => format!(
                "transfers of deployment {id} begin one after the other, {} a minute",
                own.starts_per_minute.unwrap_or(0)
            ),
        };
        Some((cap, why))
    }

    /// `limits` are the deployment's own; `None` where it is gone.
    fn has_room(
        &self,
        cap: &Cap,
        settings: &Settings,
        limits: Option<&Limits>,
        now: Instant,
    ) -> bool {
        let below = |number: u32, most: Option<u32>| most.is_none_or(|most| number < most);
        match cap {
            Cap::Site => below(self.running.len() as u32, settings.limits.transfers),
            Cap::Group(name) => {
                let most = settings.group_limits.get(name).and_then(|group| group.transfers);
                below(self.by_group.get(name).copied().unwrap_or(0), most)
            }
            Cap::Deployment(id) => {
                let number = self.by_deployment.get(id).copied().unwrap_or(0);
                below(number, limits.and_then(|limits| limits.transfers))
            }
            Cap::SiteRate => {
                settings.limits.starts_per_minute.is_none() || self.site.next(now).is_none()
            }
            Cap::DeploymentRate(id) => {
                limits.is_none_or(|limits| limits.starts_per_minute.is_none())
                    || self.rates.get(id).is_none_or(|rate| rate.next(now).is_none())
            }
        }
    }

    /// A transfer begins.
    pub fn begin(
        &mut self,
        settings: &Settings,
        deployment: &Deployment,
        device: &Arc<str>,
        groups: &[String],
        now: Instant,
    ) {
        self.go_on(device, deployment.id, groups);
        if let Some(per_minute) = settings.limits.starts_per_minute {
            self.site.take(per_minute, now);
        }
        if let Some(per_minute) = deployment.conditions.limits.starts_per_minute {
            self.rates.entry(deployment.id).or_default().take(per_minute, now);
        }
    }

    /// One that began before goes on: its device is back.
    pub fn go_on(&mut self, device: &Arc<str>, deployment: i64, groups: &[String]) {
        if self.running.get(device).is_some_and(|running| running.deployment == deployment) {
            return;
        }
        self.end(device);
        for group in groups {
            *self.by_group.entry(group.clone()).or_default() += 1;
        }
        *self.by_deployment.entry(deployment).or_default() += 1;
        let running = Running { deployment, groups: groups.to_vec() };
        self.running.insert(Arc::clone(device), running);
    }

    /// It has ended, or its device is gone. `true` where somebody may begin because of that.
    pub fn end(&mut self, device: &str) -> bool {
        let Some(running) = self.running.remove(device) else { return false };
        for group in running.groups {
            take_one(&mut self.by_group, &group);
        }
        take_one(&mut self.by_deployment, &running.deployment);
        !self.waiting.is_empty()
    }

    /// This device waits for this cap.
    pub fn wait(&mut self, cap: Cap, device: &Arc<str>) {
        let queue = self.waiting.entry(cap).or_default();
        if queue.names.insert(Arc::clone(device)) {
            queue.order.push_back(Arc::clone(device));
        }
    }

    /// Who is to be considered now: the longest waiting one of a cap that has room.
    pub fn next<'a>(
        &mut self,
        settings: &Settings,
        limits: impl Fn(i64) -> Option<&'a Limits>,
        now: Instant,
    ) -> Option<Arc<str>> {
        let open = self.waiting.keys().find(|cap| {
            let limits = match cap {
                Cap::Deployment(id) | Cap::DeploymentRate(id) => limits(*id),
                _ => None,
            };
            self.has_room(cap, settings, limits, now)
        })?;
        let open = open.clone();
        let queue = self.waiting.get_mut(&open)?;
        let device = queue.order.pop_front()?;
        queue.names.remove(&device);
        if queue.order.is_empty() {
            self.waiting.remove(&open);
        }
        Some(device)
    }

    /// When a rate lets the next one begin who waits for it.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let next = |cap: &Cap| match cap {
            Cap::SiteRate => self.site.next(now),
            Cap::DeploymentRate(id) => self.rates.get(id)?.next(now),
            _ => None,
        };
        self.waiting.keys().filter_map(next).min()
    }

    /// A deployment is over and forgotten.
    pub fn forget(&mut self, deployment: i64) {
        self.rates.remove(&deployment);
    }
}

fn take_one<K: std::hash::Hash + Eq>(numbers: &mut HashMap<K, u32>, key: &K) {
    if let Some(number) = numbers.get_mut(key) {
        *number -= 1;
        if *number == 0 {
            numbers.remove(key);
        }
    }
}
