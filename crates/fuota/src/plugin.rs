//! The hook: from the broker's phases to the engine (rules 1, 24 and 25).

use std::sync::{Arc, atomic::Ordering};

use hook::{
    Access, BoxFuture, Broker, Client, ConnectRequest, ConnectVerdict, Context, Hook, Origin,
    Publish, PublishVerdict, Reason, ReasonKind, Replacement, SessionEnd, SubscribeVerdict,
    Subscription,
};
use tokio::time::Instant;

use crate::{
    device::Device,
    dialect::{
        Dialect, Heard, MAX_REQUESTS, Message, Rest, Trouble, Uplink, quirks::SECOND_DIALECT,
    },
    downlink::downlink_device,
    engine::{Counters, Engine},
    identity::is_staff,
    link::Link,
};

/// What concerns one device: this, its id, and the rest of the topic.
pub const DEVICES: &str = "fuota/devices/";
/// What a device is called that is known for the time of its connection only.
const UNKNOWN: &str = "(session)";

/// See [the module](self).
pub struct Plugin(pub Arc<Engine>);

impl Hook for Plugin {
    fn name(&self) -> &'static str {
        "fuota"
    }

    fn start(&self, broker: Arc<dyn Broker>) {
        drop(self.0.broker.set(broker));
        self.0.remember_runtime();
        self.0.end_what_was_left();
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        Box::pin(self.0.identify(request))
    }

    fn session_start(&self, context: Context<'_>, _subscriptions: &[Subscription]) {
        let Context { client, outbox, slot } = context;
        let name = self.0.name_of(client);
        if !self.0.is_current(client) || self.0.accounts.cuts.concern(client, name.as_deref()) {
            if let Some(broker) = self.0.broker.get() {
                let text = "the account was removed or changed";
                let reason = Reason::new(ReasonKind::AdministrativeAction, text);
                broker.disconnect(&client.id, &reason);
            }
            return;
        }
        if is_staff(client.identity.role) {
            return;
        }
        let engine = &self.0;
        engine.remember_runtime();
        let link = Arc::new(Link::new(Arc::clone(client), outbox.clone(), name));
        engine.registry.add_link(&link);
        slot.set(Arc::clone(&link));
        // Who is known already is online now; who is not becomes a device when it acts as one.
        if link.name.as_ref().is_some_and(|name| engine.registry.get(name).is_some()) {
            drop(engine.device_of(&link));
        }
    }

    fn authorize_publish(&self, client: &Client, topic: &str) -> Access {
        self.0.authorize_publish(client, topic)
    }

    fn authorize_subscribe(&self, client: &Client, filter: &str) -> Access {
        self.0.authorize_subscribe(client, filter)
    }

    fn wants(&self, topic: &str) -> bool {
        self.0.dialects.iter().any(|dialect| dialect.claims(topic))
            || downlink_device(topic).is_some()
    }

    fn publish(&self, context: Context<'_>, publish: &Publish<'_>) -> PublishVerdict {
        let engine = &self.0;
        if let Some(id) = downlink_device(publish.topic) {
            if publish.origin == Origin::Will && !engine.is_current(context.client) {
                let text = "the account was removed or changed since the will was given";
                return engine.refuse(context.client, text.into());
            }
            let mut dialects = engine.dialects.iter();
            let order = |dialect| engine.order(&context, dialect, publish, Some(id));
            if let Some(verdict) = dialects.find_map(order) {
                return verdict;
            }
            return engine.write_down(context.client, id, publish);
        }
        let Some(dialect) = engine.dialects.iter().find(|dialect| dialect.claims(publish.topic))
        else {
            return PublishVerdict::Continue;
        };
        if is_staff(context.client.identity.role)
            && let Some(verdict) = engine.order(&context, dialect, publish, None)
        {
            return verdict;
        }
        let heard = Heard::from(publish);
        let link = context.slot.get_mut::<Arc<Link>>().map(|link| &*link);
        let live = link.filter(|_| publish.origin == Origin::Live);
        let Some(link) = live.filter(|link| link.speaks(dialect)) else {
            return engine.uplink_of_none(context.client, live.is_some(), dialect, publish);
        };
        let read = {
            let mut state = link.state.lock();
            let Some(talk) = &mut state.talk else { return PublishVerdict::Continue };
            if let Some(request) = talk.read_request(&heard) {
                drop(state);
                engine.request(link, request);
                return PublishVerdict::Consume;
            }
            talk.read(&heard)
        };
        engine.uplink(context.client, link, dialect, read, publish.payload)
    }

    fn subscribe(&self, context: Context<'_>, subscription: &Subscription) -> SubscribeVerdict {
        let engine = &self.0;
        if let Some(inner) = shared_filter(&subscription.filter) {
            let downlink = engine.dialects.iter().any(|dialect| dialect.is_downlink(inner));
            if downlink || downlink_device(inner).is_some() {
                Counters::add(&engine.counters.refused, 1);
                return SubscribeVerdict::Reject(Reason::new(
                    ReasonKind::NotAuthorized,
                    "a downlink cannot be shared: every device has its own",
                ));
            }
            return SubscribeVerdict::Continue;
        }
        let dialect = engine.dialects.iter().find(|one| one.is_downlink(&subscription.filter));
        let Some(dialect) = dialect else { return SubscribeVerdict::Continue };
        match context.slot.get_mut::<Arc<Link>>() {
            Some(link) => {
                engine.subscribed(link, dialect, subscription);
                SubscribeVerdict::Consume
            }
            // Services and operators read what all devices say there.
            None if is_staff(context.client.identity.role) => SubscribeVerdict::Continue,
            // It is being disconnected. Nothing is routed to it; and where its account is still
            // there, the session goes on with what it subscribed to: a refusal would end that.
            None => SubscribeVerdict::Consume,
        }
    }

    fn unsubscribe(&self, context: Context<'_>, filter: &str) {
        if let Some(link) = context.slot.get_mut::<Arc<Link>>()
            && link.dialect().is_some_and(|dialect| dialect.is_downlink(filter))
        {
            let mut state = link.state.lock();
            if let Some(talk) = &mut state.talk {
                talk.unsubscribed(filter);
                state.downlink = talk.listens();
            }
        }
    }

    fn session_end(&self, context: Context<'_>, _end: SessionEnd) {
        if let Some(link) = context.slot.take::<Arc<Link>>() {
            self.0.ended(&link);
        }
    }
}

impl Engine {
    /// A publish on a dialect's topic that is not one plain request.
    fn uplink(
        self: &Arc<Self>,
        client: &Client,
        link: &Arc<Link>,
        dialect: &Arc<dyn Dialect>,
        read: Uplink,
        payload: &[u8],
    ) -> PublishVerdict {
        if let Uplink::Forged { name } = read {
            return self.refuse(client, format!("{name} is not accepted from a client"));
        }
        // Who speaks where devices speak is one (rule 1).
        drop(self.device_of(link));
        let Uplink::Message(message) = read else { return PublishVerdict::Continue };
        if let Some(name) = self.forged_for_others(&message.rest, payload) {
            return self.refuse(client, format!("{name} is not accepted from a client"));
        }
        let Message { requests, too_many, questions, report, says, quirks, rest } = message;
        for quirk in quirks {
            self.quirks.count(dialect.name(), quirk);
        }
        if !says.is_empty() {
            let state = link.state.lock();
            self.say_all(link, &state, says);
        }
        for request in requests {
            self.request(link, request);
        }
        if too_many {
            let text = format!(
                "more than {MAX_REQUESTS} requests in one message: the others were dropped"
            );
            self.send_error(link, &mut link.state.lock(), &Trouble::TooMuch(text), &None);
        }
        if let Some(report) = report {
            self.report(link, report);
        }
        for question in questions {
            self.ask(link, question);
        }
        self.pass_on(client, link.name.as_deref(), rest)
    }

    /// The same from one that speaks no dialect here: an account that is no device, a will, or a
    /// connection that speaks another one (`second`). What goes on goes on, nothing is answered.
    fn uplink_of_none(
        &self,
        client: &Client,
        second: bool,
        dialect: &Arc<dyn Dialect>,
        publish: &Publish<'_>,
    ) -> PublishVerdict {
        if second {
            self.quirks.count(dialect.name(), SECOND_DIALECT);
        }
        let name = if is_staff(client.identity.role) { None } else { self.name_of(client) };
        let message = match dialect.begin(name.as_ref()).read(&Heard::from(publish)) {
            Uplink::Forged { name } => {
                return self.refuse(client, format!("{name} is not accepted from a client"));
            }
            Uplink::Ordinary => return PublishVerdict::Continue,
            Uplink::Message(message) => message,
        };
        if let Some(name) = self.forged_for_others(&message.rest, publish.payload) {
            return self.refuse(client, format!("{name} is not accepted from a client"));
        }
        let asked =
            !message.requests.is_empty() || message.too_many || !message.questions.is_empty();
        // A will is sent when nobody is there to be answered.
        if asked && publish.origin != Origin::Will {
            let text = match second {
                true => "this connection speaks another dialect already",
                false => "only a device may request firmware; this account is none",
            };
            return self.refuse(client, text.into());
        }
        self.pass_on(client, name.as_deref(), message.rest)
    }

    /// What goes on under another topic must not be what only the server says either (rule 24).
    fn forged_for_others(&self, rest: &Rest, payload: &[u8]) -> Option<String> {
        let Rest::Below(_) = rest else { return None };
        let mut everywhere =
            self.dialects.iter().filter(|dialect| dialect.is_reserved_everywhere());
        everywhere.find_map(|dialect| dialect.forgery(payload))
    }

    /// What remains of a message for its subscribers.
    fn pass_on(&self, client: &Client, name: Option<&str>, rest: Rest) -> PublishVerdict {
        let replacement = match (rest, name) {
            (Rest::All, _) | (Rest::Below(_), None) => return PublishVerdict::Continue,
            (Rest::Nothing, _) => return PublishVerdict::Consume,
            (Rest::Refused(text), _) => return self.refuse(client, text),
            (Rest::Part(payload), _) => Replacement { topic: None, payload: Some(payload) },
            (Rest::Below(end), Some(name)) => {
                Replacement { topic: Some(format!("{DEVICES}{name}/{end}")), payload: None }
            }
        };
        PublishVerdict::Replace(Box::new(replacement))
    }

    pub fn refuse(&self, client: &Client, text: String) -> PublishVerdict {
        if let Some(times) = self.counters.refused_line.note() {
            tracing::warn!(client = %client.id, reason = text, times, "refused a publish");
        }
        Counters::add(&self.counters.refused, 1);
        PublishVerdict::Reject(Reason::new(ReasonKind::NotAuthorized, text))
    }

    /// A connection has its downlink now.
    fn subscribed(
        self: &Arc<Self>,
        link: &Arc<Link>,
        dialect: &Arc<dyn Dialect>,
        subscription: &Subscription,
    ) {
        if !link.speaks(dialect) {
            // It is granted and stays silent: the server answers in the first one.
            return self.quirks.count(dialect.name(), SECOND_DIALECT);
        }
        {
            let mut state = link.state.lock();
            if let Some(talk) = &mut state.talk {
                talk.subscribed(&subscription.filter, subscription.qos);
                state.downlink = talk.listens();
            }
        }
        if let Some(device) = self.device_of(link) {
            self.consider(&device);
        }
    }

    /// The device behind a connection, made and joined when it first acts as one (rule 1).
    /// `None` once the connection has ended.
    pub fn device_of(self: &Arc<Self>, link: &Arc<Link>) -> Option<Arc<Device>> {
        {
            let state = link.state.lock();
            if state.closed || state.device.is_some() {
                return state.device.clone().filter(|_| !state.closed);
            }
        }
        loop {
            let device = self.find_device(link);
            let mut state = device.state.lock();
            if state.gone {
                continue; // forgotten in between
            }
            let came = state.links.is_empty();
            state.links.push(Arc::clone(link));
            state.away_since = None;
            if let Some(dialect) = link.dialect() {
                state.dialect = Some(dialect.name().into());
            }
            state.client_id = Some(link.client.id.chars().take(256).collect());
            if came {
                self.tell_presence(&device, "online");
            }
            drop(state);
            link.state.lock().device = Some(Arc::clone(&device));
            device.touch();
            if let Some((_, model)) =
                link.client.user_properties.iter().find(|(key, _)| key == "model")
            {
                self.learn_model(&device, model);
            }
            self.watch_outcome(&device);
            return Some(device);
        }
    }

    fn find_device(&self, link: &Link) -> Arc<Device> {
        let limit = self.settings().max_unregistered;
        let found = link.name.as_ref().and_then(|name| self.registry.get_or_create(name, limit));
        match found {
            Some((device, forgotten)) => {
                for old in forgotten {
                    drop(self.fleet.lock().remove_device(&old.id));
                    self.rollouts.notify_one();
                    // Where it cannot be queued now, it is one too many after a restart only.
                    drop(self.db.submit(vec![crate::db::Op::DeviceGone(old.id.to_string())], None));
                }
                device
            }
            // Without identity, or one more than may be known: for this connection only.
            None => Arc::new(Device::new(UNKNOWN.into(), false)),
        }
    }

    pub fn ended(self: &Arc<Self>, link: &Arc<Link>) {
        self.registry.remove_link(link.client.connection);
        let device = {
            let mut state = link.state.lock();
            state.closed = true;
            state.downlink = None;
            if let Some(lane) = state.lane.take()
                && let Some(last) = state.window.last_request
            {
                lane.transfer.heard(last);
            }
            state.pending.clear();
            state.device.take()
        };
        let Some(device) = device else { return };
        {
            let mut state = device.state.lock();
            state.links.retain(|other| !Arc::ptr_eq(other, link));
            if state.links.is_empty() {
                state.away_since = Some(Instant::now());
                self.release_places(&device);
                self.tell_presence(&device, "offline");
            }
        }
        device.touch();
        self.watch_outcome(&device);
        // Another connection of the device may be the newest with a downlink now.
        self.consider(&device);
    }

    /// Of a device that is known beyond its connection. It is locked by the caller, so that what
    /// is told stands in the order in which it happened.
    fn tell_presence(&self, device: &Device, what: &'static str) {
        if *device.id != *UNKNOWN {
            self.tell_known(&device.id, what);
        }
    }

    /// Site-wide: refused as forged or not allowed.
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Ordering::Relaxed)
    }
}

/// Whether only the server says something here: what devices sent, under their own names.
pub fn is_about_device(topic: &str) -> bool {
    topic.starts_with(DEVICES)
}

/// The filter inside `$share/NAME/FILTER`.
pub fn shared_filter(filter: &str) -> Option<&str> {
    Some(filter.strip_prefix("$share/")?.split_once('/')?.1)
}
