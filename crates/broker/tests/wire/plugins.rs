//! What a plugin gives as a reason or a message, as the client sees it.

use crate::support::*;
use hook::{
    Access, BoxFuture, Class, Client, ConnectRequest, ConnectVerdict, Context, Hook, Outgoing,
    Properties, Publish as Seen, PublishVerdict, Qos, Reason, ReasonKind, Refused,
    SubscribeVerdict, Subscription,
};
use std::sync::Arc;

const KINDS: [ReasonKind; 9] = [
    ReasonKind::NotAuthorized,
    ReasonKind::BadUserNameOrPassword,
    ReasonKind::ClientIdentifierNotValid,
    ReasonKind::TopicNameInvalid,
    ReasonKind::PayloadFormatInvalid,
    ReasonKind::QuotaExceeded,
    ReasonKind::ServerBusy,
    ReasonKind::AdministrativeAction,
    ReasonKind::ImplementationSpecific,
];

/// `refuse/N` is refused with kind N; `send` is answered with a message of the payload's size.
struct Plugin;

fn kind(topic: &str) -> Option<Reason> {
    let at: usize = topic.strip_prefix("refuse/")?.parse().ok()?;
    Some(Reason::new(KINDS[at], "since it says so"))
}

impl Hook for Plugin {
    fn name(&self) -> &'static str {
        "plugin"
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        let refused = request.username.as_deref().and_then(kind);
        let verdict = refused.map_or(ConnectVerdict::Continue, ConnectVerdict::Reject);
        Box::pin(std::future::ready(verdict))
    }

    fn authorize_publish(&self, _: &Client, topic: &str) -> Access {
        kind(topic).map_or(Access::Continue, Access::Reject)
    }

    fn subscribe(&self, _: Context<'_>, asked: &Subscription) -> SubscribeVerdict {
        kind(&asked.filter).map_or(SubscribeVerdict::Continue, SubscribeVerdict::Reject)
    }

    fn wants(&self, topic: &str) -> bool {
        topic == "send"
    }

    fn publish(&self, context: Context<'_>, publish: &Seen<'_>) -> PublishVerdict {
        let properties =
            Properties { user_properties: vec![("k".into(), "v".into())], ..Properties::default() };
        let answer = Outgoing {
            topic: "t".into(),
            payload: "x".repeat(publish.payload.len()).into(),
            qos: Qos::AtLeastOnce,
            class: Class::Control,
            properties: Some(Box::new(properties)),
            receipt: None,
        };
        match context.outbox.send(answer) {
            Ok(()) => PublishVerdict::Consume,
            Err(Refused::TooLarge) => {
                PublishVerdict::Reject(Reason::new(ReasonKind::QuotaExceeded, "too large"))
            }
            Err(other) => panic!("{other}"),
        }
    }
}

fn with_plugin() -> Site {
    site_with_hooks(broker::Settings::default(), vec![Arc::new(Plugin)])
}

/// [MQTT-3.2.2-8], [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.9.3-2], [MQTT-3.14.2-1]: a packet says the reason where
/// it has a code for it, and "not wanted here" where it has none.
#[test]
fn reasons_are_said_in_the_codes_of_their_packets() {
    let site = with_plugin();
    let codes = [0x87, 0x83, 0x83, 0x90, 0x99, 0x97, 0x83, 0x83, 0x83];
    let in_connack = [0x87, 0x86, 0x85, 0x90, 0x99, 0x97, 0x89, 0x83, 0x83];
    let in_old_connack = [5, 4, 2, 3, 3, 3, 3, 3, 3];
    let in_suback = [0x87, 0x83, 0x83, 0x83, 0x83, 0x97, 0x83, 0x83, 0x83];
    let in_disconnect = [0x87, 0x83, 0x83, 0x90, 0x99, 0x97, 0x89, 0x98, 0x83];
    for at in 0..KINDS.len() {
        let topic = format!("refuse/{at}");
        let refused = |version| site.greet(&Connect::new(version, "c").user(&topic)).packet();
        assert_eq!(refused(V5)[..4][2..], [0, in_connack[at]]);
        assert_eq!(refused(V4), [0x20, 2, 0, in_old_connack[at]]);
        let mut wire = site.client(V5, "c");
        for (qos, first) in [(1, 0x40), (2, 0x50)] {
            wire.publish(Publish::new(&topic, "x").qos(qos, 7));
            let ack = wire.packet();
            assert_eq!((ack[0], ack[4]), (first, codes[at]), "{:?}", KINDS[at]);
        }
        wire.send(&subscribe(V5, 1, &[], &[(&topic, 0)]));
        wire.expect(&suback(V5, 1, &[in_suback[at]]));
        assert!(site.broker.disconnect("c", &Reason::new(KINDS[at], "")));
        wire.ended(in_disconnect[at]);

        let mut old = site.client(V4, "c");
        old.publish(Publish::new(&topic, "x").qos(1, 7));
        old.expect(&puback(7));
        old.send(&subscribe(V4, 1, &[], &[(&topic, 0)]));
        old.expect(&suback(V4, 1, &[0x80]));
        old.leave();
    }
}

/// [MQTT-3.1.2-24]: what a plugin sends counts with its properties.
#[test]
fn a_plugins_message_fits_the_clients_maximum() {
    let site = with_plugin();
    let mut wire = site.enter(&Connect::new(V5, "c").with(&seconds(0x27, 40)), false);
    let answer = |len: usize| Publish::new("t", "x".repeat(len)).qos(1, 1).with(&user("k", "v"));
    let most = 40 - answer(0).bytes(V5).len();
    wire.publish(Publish::new("send", "x".repeat(most + 1)).qos(1, 8));
    let ack = wire.packet();
    assert_eq!((ack[0], ack[4]), (0x40, 0x97));
    wire.publish(Publish::new("send", "x".repeat(most)).qos(1, 9));
    wire.expect(&puback(9));
    wire.expect_publish(answer(most));
    // 3.1.1 has no maximum, and no properties.
    let mut old = site.client(V4, "old");
    old.publish(Publish::new("send", "x".repeat(100)));
    old.expect_publish(Publish::new("t", "x".repeat(100)).qos(1, 1));
}
