//! One publish to all its receivers.

use bytes::Bytes;
use hook::{Properties, Qos, SessionEnd};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    counters::{Tally, Totals},
    hooks::Hooks,
    inbox::{Kick, Pushed},
    index::{Index, Receiver, Receivers},
    lanes::Lanes,
    limits::LiveLimits,
    message::{Delivery, Message},
    pace::Pace,
    packet::reason,
    registry::Registry,
    retained::Retained,
    settings::Settings,
};

/// Receivers served at QoS 1 and 2 before others may run.
const YIELD_AFTER: usize = 256;

/// All that connections share.
pub(crate) struct Exchange {
    pub settings: Settings,
    pub limits: Arc<LiveLimits>,
    pub pace: Pace,
    pub hooks: Hooks,
    pub index: Arc<Index>,
    pub retained: Retained,
    pub registry: Arc<Registry>,
    pub lanes: Arc<Lanes>,
    pub totals: Arc<Totals>,
}

/// Who gets a topic, kept by a publisher from one message to the next: it holds until the index
/// changes.
pub(crate) struct Route {
    topic: Arc<str>,
    version: u64,
    receivers: Arc<Receivers>,
}

/// What a publish carries, before it has an order and receivers.
pub(crate) struct Draft {
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub properties: Option<Box<Properties>>,
    /// Session key of the publisher; 0 is the broker.
    pub publisher: u64,
    /// The publisher's ingress into the router.
    pub ingress: usize,
}

impl Exchange {
    /// The receivers of a topic, from `cached` where that still holds.
    fn receivers(
        &self,
        topic: &Arc<str>,
        publisher: u64,
        cached: &mut Option<Box<Route>>,
    ) -> Arc<Receivers> {
        match cached {
            Some(route) if route.topic == *topic && route.version == self.index.version() => {
                route.receivers.clone()
            }
            _ => {
                let (receivers, version) = self.index.receivers(topic, publisher);
                let receivers = Arc::new(receivers);
                let route = Route { topic: topic.clone(), version, receivers: receivers.clone() };
                *cached = Some(Box::new(route));
                receivers
            }
        }
    }

    /// Retains and distributes one publish. What is returned has still to be waited for, before
    /// the publish is acknowledged; its topic has been checked.
    pub fn publish(
        &self,
        topic: &str,
        draft: Draft,
        cached: &mut Option<Box<Route>>,
        tally: &mut Tally,
    ) -> Option<Box<Hold>> {
        let topic: Arc<str> = match cached {
            Some(route) if *route.topic == *topic => route.topic.clone(),
            _ => topic.into(),
        };
        let Draft { payload, qos, retain, properties, publisher, ingress } = draft;
        let message = Arc::new(Message {
            topic,
            payload,
            qos,
            retain,
            expires: Message::expiry(properties.as_deref()),
            properties,
            publisher,
            sequence: if retain { self.retained.next_sequence() } else { 0 },
        });
        // [MQTT-3.3.1-5]: retained before the index is read, so that a subscriber that comes
        // meanwhile finds it in one of the two.
        if retain && !self.retained.store(&message) {
            tracing::warn!(
                topic = &*message.topic,
                "not retained: limits.retained_messages or limits.retained_bytes is reached"
            );
        }
        let receivers = self.receivers(&message.topic, publisher, cached);
        self.distribute(message, &receivers, ingress, tally)
    }

    fn distribute(
        &self,
        message: Arc<Message>,
        receivers: &Receivers,
        ingress: usize,
        tally: &mut Tally,
    ) -> Option<Box<Hold>> {
        let picked: Vec<Receiver>;
        let sessions = if receivers.groups.is_empty() {
            &receivers.sessions[..]
        } else {
            let members = receivers.groups.iter().filter_map(|group| group.pick());
            picked = receivers.sessions.iter().cloned().chain(members).collect();
            &picked[..]
        };
        if message.qos == Qos::AtMostOnce {
            self.lanes.send(ingress, &message, sessions, tally);
            return None;
        }
        let mut full = Vec::new();
        for (at, receiver) in sessions.iter().enumerate() {
            if at == YIELD_AFTER {
                full.extend_from_slice(&sessions[at..]);
                break;
            }
            if offer(&message, receiver, None, tally) == Pushed::Full {
                full.push(receiver.clone());
            }
        }
        (!full.is_empty()).then(|| Box::new(Hold::new(message, full, self.limits.publish_hold())))
    }
}

/// One copy to one session, at the lower of both qualities of service.
fn offer(
    message: &Arc<Message>,
    receiver: &Receiver,
    waker: Option<&std::task::Waker>,
    tally: &mut Tally,
) -> Pushed {
    let qos = message.qos.min(receiver.qos);
    let delivery = Delivery {
        message: message.clone(),
        qos,
        retain: message.retain && receiver.retain_as_published,
        subscriptions: receiver.identifiers.clone(),
    };
    let pushed = match qos {
        Qos::AtMostOnce => receiver.session.inbox.push_lossy(delivery),
        _ => receiver.session.inbox.push_assured(delivery, waker),
    };
    if pushed == Pushed::Dropped {
        tally.dropped += 1;
    }
    pushed
}

/// A QoS 1 or 2 publish that waits for room in some queues: its publisher is not acknowledged
/// before it is done, and sends nothing else meanwhile.
///
/// After `limits.publish_hold` the copies that found no room are dropped and counted, and the
/// slow subscribers are disconnected (0x97); the publisher is never the one who pays.
pub(crate) struct Hold {
    message: Arc<Message>,
    waiting: Vec<Receiver>,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl Hold {
    fn new(message: Arc<Message>, waiting: Vec<Receiver>, patience: Duration) -> Self {
        Hold { message, waiting, deadline: Box::pin(tokio::time::sleep(patience)) }
    }

    /// Ready when every copy is queued or given up.
    pub fn poll(&mut self, cx: &mut Context<'_>, tally: &mut Tally) -> Poll<()> {
        let late = self.deadline.as_mut().poll(cx).is_ready();
        let mut served = 0;
        let mut turn_over = false;
        self.waiting.retain(|receiver| {
            if served == YIELD_AFTER {
                turn_over = true;
                return true;
            }
            served += 1;
            let full = offer(&self.message, receiver, Some(cx.waker()), tally) == Pushed::Full;
            if full && late {
                tally.dropped += 1;
                tally.slow_clients += 1;
                receiver.session.inbox.kick(Kick {
                    end: SessionEnd::Kicked,
                    reason: reason::QUOTA_EXCEEDED,
                    text: "the client reads too slowly: its queue was full (limits.publish_hold)"
                        .into(),
                });
                return false;
            }
            full
        });
        if turn_over {
            cx.waker().wake_by_ref();
        }
        if self.waiting.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The same for a publish without a connection: a will, or the broker's own.
    pub async fn wait(mut self: Box<Self>, totals: Arc<Totals>) {
        let mut tally = Tally::default();
        std::future::poll_fn(|cx| self.poll(cx, &mut tally)).await;
        tally.flush(&totals);
    }
}
