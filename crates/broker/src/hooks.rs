//! The plugins of one broker, asked in order.

use bytes::Bytes;
use hook::{
    Access, Broker, Client, ConnectRequest, ConnectVerdict, Context, Hook, Identity, Outbox,
    Publish, PublishVerdict, Reason, SessionEnd, Slot, SubscribeVerdict, Subscription,
};
use std::sync::Arc;

/// All hooks, in the daemon's order.
pub(crate) struct Hooks(Box<[Arc<dyn Hook>]>);

/// One connection as hooks are shown it, with a slot for each of them.
pub(crate) struct View<'a> {
    pub client: &'a Arc<Client>,
    pub outbox: &'a Outbox,
    pub slots: &'a mut [Slot],
}

impl View<'_> {
    fn of(&mut self, hook: usize) -> Context<'_> {
        Context { client: self.client, outbox: self.outbox, slot: &mut self.slots[hook] }
    }
}

/// What all hooks together decided about a publish.
pub(crate) enum Outcome {
    /// Go on; what is `Some` replaces topic or payload.
    Route(Option<String>, Option<Bytes>),
    /// Taken by a hook.
    Consumed,
    /// Refused by a hook.
    Rejected(Reason),
}

impl Hooks {
    pub fn new(hooks: Vec<Arc<dyn Hook>>) -> Self {
        Hooks(hooks.into())
    }

    /// An empty slot for each hook.
    pub fn slots(&self) -> Box<[Slot]> {
        self.0.iter().map(|_| Slot::default()).collect()
    }

    pub fn start(&self, broker: &Arc<dyn Broker>) {
        for hook in &self.0 {
            hook.start(broker.clone());
        }
    }

    /// The first opinion counts; without one the client is anonymous.
    pub async fn connect(&self, request: &ConnectRequest) -> Result<Identity, Reason> {
        for hook in &self.0 {
            match hook.connect(request).await {
                ConnectVerdict::Continue => {}
                ConnectVerdict::Accept(identity) => return Ok(identity),
                ConnectVerdict::Reject(reason) => return Err(reason),
            }
        }
        Ok(Identity::ANONYMOUS)
    }

    pub fn session_start(&self, view: &mut View<'_>, subscriptions: &[Subscription]) {
        for (i, hook) in self.0.iter().enumerate() {
            hook.session_start(view.of(i), subscriptions);
        }
    }

    pub fn session_end(&self, view: &mut View<'_>, end: SessionEnd) {
        for (i, hook) in self.0.iter().enumerate() {
            hook.session_end(view.of(i), end);
        }
    }

    pub fn authorize_publish(&self, client: &Client, topic: &str) -> Result<(), Reason> {
        first_opinion(self.0.iter().map(|hook| hook.authorize_publish(client, topic)))
    }

    pub fn authorize_subscribe(&self, client: &Client, filter: &str) -> Result<(), Reason> {
        first_opinion(self.0.iter().map(|hook| hook.authorize_subscribe(client, filter)))
    }

    /// Asks each hook that wants the topic; a replacement is what the next one sees.
    pub fn publish(&self, view: &mut View<'_>, publish: &Publish<'_>) -> Outcome {
        let (mut topic, mut payload): (Option<String>, Option<Bytes>) = (None, None);
        for (i, hook) in self.0.iter().enumerate() {
            let current = Publish {
                topic: topic.as_deref().unwrap_or(publish.topic),
                payload: payload.as_deref().unwrap_or(publish.payload),
                ..*publish
            };
            if !hook.wants(current.topic) {
                continue;
            }
            match hook.publish(view.of(i), &current) {
                PublishVerdict::Continue => {}
                PublishVerdict::Replace(new) => {
                    topic = new.topic.or(topic);
                    payload = new.payload.or(payload);
                }
                PublishVerdict::Consume => return Outcome::Consumed,
                PublishVerdict::Reject(reason) => return Outcome::Rejected(reason),
            }
        }
        Outcome::Route(topic, payload)
    }

    /// The first hook that is not indifferent decides.
    pub fn subscribe(&self, view: &mut View<'_>, subscription: &Subscription) -> SubscribeVerdict {
        for (i, hook) in self.0.iter().enumerate() {
            match hook.subscribe(view.of(i), subscription) {
                SubscribeVerdict::Continue => {}
                decided => return decided,
            }
        }
        SubscribeVerdict::Continue
    }

    pub fn unsubscribe(&self, view: &mut View<'_>, filter: &str) {
        for (i, hook) in self.0.iter().enumerate() {
            hook.unsubscribe(view.of(i), filter);
        }
    }
}

fn first_opinion(mut answers: impl Iterator<Item = Access>) -> Result<(), Reason> {
    match answers.find(|answer| *answer != Access::Continue) {
        Some(Access::Reject(reason)) => Err(reason),
        _ => Ok(()),
    }
}
