//! The hook trait with a plugin that has nothing to do with firmware: each verdict does what its
//! name says, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use hook::{
    Access, BoxFuture, Broker, Client, ConnectRequest, ConnectVerdict, Context, Hook, Identity,
    Outgoing, Publish, PublishVerdict, Qos, Reason, ReasonKind, Replacement, SessionEnd,
    SubscribeVerdict, Subscription,
};
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Does something else on each topic, and reports every phase that it sees.
struct Plugin {
    seen: mpsc::UnboundedSender<String>,
    broker: Mutex<Option<Arc<dyn Broker>>>,
}

impl Plugin {
    fn saw(&self, what: impl Into<String>) {
        let _ = self.seen.send(what.into());
    }
}

impl Hook for Plugin {
    fn name(&self) -> &'static str {
        "test plugin"
    }

    fn start(&self, broker: Arc<dyn Broker>) {
        *self.broker.lock() = Some(broker);
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            match request.username.as_deref() {
                Some("bad") => {
                    let why = Reason::new(ReasonKind::BadUserNameOrPassword, "not you");
                    ConnectVerdict::Reject(why)
                }
                Some(name) => ConnectVerdict::Accept(Identity::device(name)),
                None => ConnectVerdict::Continue,
            }
        })
    }

    fn session_start(&self, context: Context<'_>, subscriptions: &[Subscription]) {
        context.slot.set(0usize);
        let name = context.client.identity.name.as_deref().unwrap_or("nobody");
        self.saw(format!("start {name} {}", subscriptions.len()));
    }

    fn authorize_publish(&self, _: &Client, topic: &str) -> Access {
        if topic.starts_with("forbidden/") {
            return Access::Reject(Reason::new(ReasonKind::NotAuthorized, "forbidden"));
        }
        Access::Continue
    }

    fn wants(&self, topic: &str) -> bool {
        topic.starts_with("plugin/")
    }

    fn publish(&self, context: Context<'_>, publish: &Publish<'_>) -> PublishVerdict {
        let count = context.slot.get_mut::<usize>().expect("set at the session's start");
        *count += 1;
        match publish.topic {
            "plugin/replace" => PublishVerdict::Replace(Box::new(Replacement {
                topic: Some("replaced".into()),
                payload: Some(b"other".as_slice().into()),
            })),
            "plugin/answer" => {
                let answer = Outgoing {
                    topic: "never/subscribed".into(),
                    payload: format!("count {count}").into(),
                    qos: Qos::AtLeastOnce,
                    class: hook::Class::Control,
                    properties: None,
                    receipt: None,
                };
                context.outbox.send(answer).unwrap();
                PublishVerdict::Consume
            }
            "plugin/reject" => {
                PublishVerdict::Reject(Reason::new(ReasonKind::PayloadFormatInvalid, "no"))
            }
            _ => PublishVerdict::Continue,
        }
    }

    fn subscribe(&self, _: Context<'_>, subscription: &Subscription) -> SubscribeVerdict {
        match subscription.filter.as_str() {
            "plugin/private" => SubscribeVerdict::Consume,
            "plugin/refused" => {
                SubscribeVerdict::Reject(Reason::new(ReasonKind::NotAuthorized, "no"))
            }
            _ => SubscribeVerdict::Continue,
        }
    }

    fn session_end(&self, context: Context<'_>, end: SessionEnd) {
        self.saw(format!("end {:?} after {}", end, context.slot.get_mut::<usize>().unwrap()));
    }
}

struct Site {
    port: u16,
    seen: mpsc::UnboundedReceiver<String>,
    broker: Arc<dyn Broker>,
    cancel: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

async fn site() -> Site {
    let (seen, rx) = mpsc::unbounded_channel();
    let plugin = Arc::new(Plugin { seen, broker: Mutex::default() });
    let listeners = broker::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let port = listeners.local_addrs()[0].port();
    let server = broker::Server::start(broker::Settings::default(), vec![plugin.clone()]).unwrap();
    let broker = plugin.broker.lock().clone().expect("the hook was started");
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let served = tokio::spawn(async move { server.serve(listeners, stop).await });
    Site { port, seen: rx, broker, cancel, served }
}

fn client(site: &Site, id: &str, user: Option<&str>, clean: bool) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", site.port);
    options.set_clean_session(clean);
    if let Some(user) = user {
        options.set_credentials(user, "x");
    }
    AsyncClient::new(options, 64)
}

/// The next packet that fits, by driving the client.
async fn wait<T>(events: &mut EventLoop, fits: impl Fn(Packet) -> Option<T>) -> T {
    loop {
        if let Event::Incoming(packet) = events.poll().await.expect("connected")
            && let Some(found) = fits(packet)
        {
            return found;
        }
    }
}

fn publish(packet: Packet) -> Option<(String, String)> {
    match packet {
        Packet::Publish(p) => Some((p.topic, String::from_utf8(p.payload.into()).unwrap())),
        _ => None,
    }
}

fn puback(packet: Packet) -> Option<()> {
    matches!(packet, Packet::PubAck(_)).then_some(())
}

fn suback(packet: Packet) -> Option<Vec<bool>> {
    match packet {
        Packet::SubAck(ack) => Some(
            ack.return_codes
                .iter()
                .map(|code| matches!(code, rumqttc::SubscribeReasonCode::Success(_)))
                .collect(),
        ),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verdict_does_what_it_says() {
    let mut site = site().await;
    let (onlooker, mut onlooker_events) = client(&site, "onlooker", None, true);
    onlooker.subscribe("#", rumqttc::QoS::AtMostOnce).await.unwrap();
    assert_eq!(wait(&mut onlooker_events, suback).await, [true]);

    let (device, mut events) = client(&site, "device", Some("d-1"), true);
    wait(&mut events, |p| matches!(p, Packet::ConnAck(_)).then_some(())).await;
    assert_eq!(site.seen.recv().await.unwrap(), "start nobody 0");
    assert_eq!(site.seen.recv().await.unwrap(), "start d-1 0");

    let qos = rumqttc::QoS::AtLeastOnce;
    // Consumed, answered past the router, and acknowledged.
    device.publish("plugin/answer", qos, false, "x").await.unwrap();
    let answer = wait(&mut events, publish).await;
    assert_eq!(answer, ("never/subscribed".into(), "count 1".into()));
    // Rejected and forbidden ones are acknowledged too: 3.1.1 has no other way.
    for topic in ["plugin/reject", "forbidden/x"] {
        device.publish(topic, qos, true, "x").await.unwrap();
        wait(&mut events, puback).await;
    }
    // Replaced, then routed.
    device.publish("plugin/replace", qos, false, "x").await.unwrap();
    wait(&mut events, puback).await;
    device.publish("plugin/other", qos, false, "untouched").await.unwrap();
    wait(&mut events, puback).await;
    // The onlooker saw exactly what was routed.
    assert_eq!(wait(&mut onlooker_events, publish).await, ("replaced".into(), "other".into()));
    let second = wait(&mut onlooker_events, publish).await;
    assert_eq!(second, ("plugin/other".into(), "untouched".into()));
    assert_eq!(site.broker.counters().refused, 2);
    assert_eq!(site.broker.counters().retained_messages, 0, "a refused publish is not retained");

    device.disconnect().await.unwrap();
    while events.poll().await.is_ok() {}
    assert_eq!(site.seen.recv().await.unwrap(), "end ClientLeft after 4");
    site.cancel.cancel();
    site.served.await.unwrap();
    assert_eq!(site.seen.recv().await.unwrap(), "end Shutdown after 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumed_subscription_is_private_and_comes_back_with_its_session() {
    let mut site = site().await;
    let (device, mut events) = client(&site, "device", None, false);
    let filters = ["plugin/private", "plugin/refused", "open"]
        .map(|f| rumqttc::SubscribeFilter::new(f.into(), rumqttc::QoS::AtLeastOnce));
    device.subscribe_many(filters).await.unwrap();
    assert_eq!(wait(&mut events, suback).await, [true, false, true]);
    assert_eq!(site.seen.recv().await.unwrap(), "start nobody 0");
    assert_eq!(site.broker.counters().subscriptions, 1, "the private one is not in the index");
    site.broker.publish("plugin/private", "secret".into(), Qos::AtLeastOnce, false, None);
    site.broker.publish("open", "hello".into(), Qos::AtLeastOnce, false, None);
    assert_eq!(wait(&mut events, publish).await, ("open".into(), "hello".into()));
    device.disconnect().await.unwrap();
    while events.poll().await.is_ok() {}
    assert_eq!(site.seen.recv().await.unwrap(), "end ClientLeft after 0");

    let (_device, mut events) = client(&site, "device", None, false);
    let present = wait(&mut events, |p| match p {
        Packet::ConnAck(ack) => Some(ack.session_present),
        _ => None,
    });
    assert!(present.await);
    assert_eq!(site.seen.recv().await.unwrap(), "start nobody 2");
    site.cancel.cancel();
    site.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_connect_gets_its_code() {
    let site = site().await;
    let (_client, mut events) = client(&site, "x", Some("bad"), true);
    let error = events.poll().await.expect_err("refused");
    assert!(error.to_string().contains("BadUserNamePassword"), "{error}");
    site.cancel.cancel();
    site.served.await.unwrap();
    assert_eq!(site.broker.counters().connects_refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_socket_does_not_hold_the_stop() {
    let mut site = site().await;
    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    // Accepted after the silent one: once this client is in, both are being served.
    let (_client, mut events) = client(&site, "x", None, true);
    wait(&mut events, |p| matches!(p, Packet::ConnAck(_)).then_some(())).await;
    assert_eq!(site.seen.recv().await.unwrap(), "start nobody 0");
    site.cancel.cancel();
    // Half of `settings.drain`, which it would take if the silent socket counted.
    let half = broker::Settings::default().drain / 2;
    tokio::time::timeout(half, site.served).await.expect("stops at once").unwrap();
}
