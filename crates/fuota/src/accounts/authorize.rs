//! May this client do this? The configured rules first, then the defaults (rules 24 to 26).
//!
//! What no rule can change is elsewhere: firmware messages from clients and writing to a
//! device's downlink are decided in the publish phase, and the broker keeps topics below `$`.

use std::collections::HashMap;

use hook::{Access, Client, Reason, ReasonKind, Role};

use super::{
    pattern::{covers, overlaps},
    rule::{Action, Rule, Subject},
};
use crate::{
    Service,
    downlink::downlink_device,
    engine::{Counters, Engine},
    plugin::{is_about_device, shared_filter},
    settings::AuthMode,
};

/// Where the server tells operators what happens: this, `/` and the kind.
pub const EVENTS: &str = "fuotad/events";
/// What every device has as its own in the jobs dialect: this, its id, `/`.
const AWS_THINGS: &str = "$aws/things/";

/// The rules of `auth.rules`, sorted so that a client meets few: each with its place in the list.
pub struct RuleSet {
    roles: [Vec<(usize, Rule)>; 5],
    accounts: HashMap<Box<str>, Vec<(usize, Rule)>>,
    strict: bool,
}

impl RuleSet {
    pub fn new(rules: &[Rule], strict: bool) -> RuleSet {
        let of = |role| {
            let rules = rules.iter().enumerate().filter(|(_, rule)| rule.roles.contains(&role));
            rules.map(|(place, rule)| (place, rule.clone())).collect()
        };
        let all = [Role::Anonymous, Role::Device, Role::Service, Role::Operator, Role::Admin];
        let mut accounts: HashMap<_, Vec<_>> = HashMap::new();
        for (place, rule) in rules.iter().enumerate() {
            for name in &rule.accounts {
                accounts.entry(name.clone()).or_default().push((place, rule.clone()));
            }
        }
        RuleSet { roles: all.map(of), accounts, strict }
    }

    /// Those for a role, and those for an account.
    fn of(&self, role: Role, account: Option<&str>) -> [&[(usize, Rule)]; 2] {
        let index = match role {
            Role::Anonymous => 0,
            Role::Device => 1,
            Role::Service => 2,
            Role::Operator => 3,
            Role::Admin => 4,
        };
        let own = account.and_then(|name| self.accounts.get(name));
        [&self.roles[index], own.map_or(&[], Vec::as_slice)]
    }
}

/// What the first of these rules says that is about this. An allowing rule is, where it covers the
/// whole filter; a denying one already where both share a topic: who may not hear `secret/#` may not
/// hear it as a part of `#` either.
fn decide(
    rules: [&[(usize, Rule)]; 2],
    subject: &Subject<'_>,
    action: Action,
    filter: &str,
) -> Option<bool> {
    let decides = |rule: &Rule| {
        rule.is_about(action)
            && rule.pattern(subject).is_some_and(|pattern| match rule.allow {
                true => covers(&pattern, filter),
                false => overlaps(&pattern, filter),
            })
    };
    let first = |rules: &'_ [(usize, Rule)]| {
        let decided = rules.iter().find(|(_, rule)| decides(rule));
        decided.map(|(place, rule)| (*place, rule.allow))
    };
    let decided = rules.into_iter().filter_map(first).min_by_key(|(place, _)| *place);
    decided.map(|(_, allow)| allow)
}

/// Whether a topic or filter is one of those on which the server tells operators what happens.
fn is_event(topic: &str) -> bool {
    let rest = topic.strip_prefix(EVENTS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a role is bound by rule 26; the others may go anywhere that the broker allows.
fn is_bounded(role: Role) -> bool {
    matches!(role, Role::Anonymous | Role::Device)
}

impl Engine {
    /// Decides about a publish, live or a will.
    pub fn authorize_publish(&self, client: &Client, topic: &str) -> Access {
        let role = client.identity.role;
        if is_event(topic) {
            return self.refuse_access("only the server says what happens to the updates");
        }
        // What is written to a downlink is judged with its content, in the publish phase.
        let downlink = downlink_device(topic).is_some();
        // Before the rules, since none lets a client say what only the server says.
        if is_bounded(role) && !downlink && is_about_device(topic) {
            return self.refuse_access("here the server says what devices sent");
        }
        match self.by_rules(client, Action::Publish, topic) {
            Some(true) => return Access::Continue,
            Some(false) => return self.refuse_access("a rule denies publishing to this topic"),
            None => {}
        }
        let exempt = self.is_dialect(topic) || downlink;
        if self.accounts.rules.load().strict
            && is_bounded(role)
            && !exempt
            && !self.is_own(client, topic)
        {
            return self.refuse_access("auth.strict: no rule allows publishing to this topic");
        }
        Access::Continue
    }

    /// Decides about a subscription; a shared one is judged by the filter inside.
    pub fn authorize_subscribe(&self, client: &Client, filter: &str) -> Access {
        let role = client.identity.role;
        let filter = shared_filter(filter).unwrap_or(filter);
        if is_event(filter) && !self.may_hear_events(role) {
            return self
                .refuse_access("events of the updates are for service and operator accounts");
        }
        match self.by_rules(client, Action::Subscribe, filter) {
            Some(true) => return Access::Continue,
            Some(false) => return self.refuse_access("a rule denies subscribing to this filter"),
            None if !is_bounded(role) || self.is_own(client, filter) => return Access::Continue,
            None => {}
        }
        if let Some(id) = downlink_device(filter)
            && self.name_of(client).is_none_or(|own| *own != *id)
        {
            return self.refuse_access("this is the downlink of another device");
        }
        if filter.starts_with('$') && !covers("$SYS/#", filter) {
            return self.refuse_access("devices may not subscribe here");
        }
        if self.accounts.rules.load().strict && !self.is_dialect(filter) {
            return self.refuse_access("auth.strict: no rule allows subscribing to this filter");
        }
        Access::Continue
    }

    /// Whether clients of a role hear what operators are to hear; also by a wildcard.
    pub fn may_hear_events(&self, role: Role) -> bool {
        match role {
            Role::Service | Role::Operator | Role::Admin => true,
            Role::Anonymous => self.settings().mode == AuthMode::Open,
            Role::Device => false,
        }
    }

    /// What the rules say to a client.
    fn by_rules(&self, client: &Client, action: Action, filter: &str) -> Option<bool> {
        let account = match client.identity.role {
            Role::Anonymous => None,
            _ => client.identity.name.as_deref(),
        };
        let rules = self.accounts.rules.load();
        let rules = rules.of(client.identity.role, account);
        if rules.iter().all(|rules| rules.is_empty()) {
            return None;
        }
        let names_device = || rules.iter().copied().flatten().any(|(_, rule)| rule.names_device());
        let device = match is_bounded(client.identity.role) && names_device() {
            true => self.name_of(client),
            false => None,
        };
        let subject = Subject { client: &client.id, user: account, device: device.as_deref() };
        decide(rules, &subject, action, filter)
    }

    /// Whether this is a topic on which devices ask for firmware and hear it.
    fn is_dialect(&self, topic: &str) -> bool {
        self.dialects.iter().any(|dialect| dialect.claims(topic) || dialect.is_downlink(topic))
    }

    /// Whether this is below the topics that bear the device's own id.
    fn is_own(&self, client: &Client, filter: &str) -> bool {
        let Some(rest) = filter.strip_prefix(AWS_THINGS) else { return false };
        let Some((id, _)) = rest.split_once('/') else { return false };
        self.name_of(client).is_some_and(|own| *own == *id)
    }

    fn refuse_access(&self, text: &'static str) -> Access {
        Counters::add(&self.counters.refused, 1);
        Access::Reject(Reason::new(ReasonKind::NotAuthorized, text))
    }
}

impl Service {
    /// Whether a user of the admin interface may read what is retained on a topic: what the rules
    /// keep from it over MQTT they keep from it here. It has no client id: a denying rule that names
    /// one keeps all of them, an allowing one gives none.
    pub fn may_read(&self, user: &str, topic: &str) -> bool {
        let Some(user) = self.0.accounts.get(user) else { return false };
        let rules = self.0.accounts.rules.load();
        let subject = Subject { client: "", user: Some(&user.name), device: None };
        let rules = rules.of(user.role.into(), subject.user);
        decide(rules, &subject, Action::Subscribe, topic) != Some(false)
    }
}
