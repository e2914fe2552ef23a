//! What the operator sees and does: sessions in pages, retained messages by filter.

use crate::support::{disk::Disk, *};
use broker::Settings;
use hook::{ClientQuery, ReasonKind};

#[test]
fn sessions_come_in_pages_by_client_id() {
    let site = site();
    let mut wires: Vec<Wire> =
        (0..250).map(|n| site.client(V5, &format!("dev-{:03}", (n * 7) % 250))).collect();
    let mut other = site.client(V5, "other");
    other.send(&subscribe(V5, 1, &[], &[("a", 1), ("b/#", 0)]));
    other.packet();
    site.enter(&Connect::lasting(V5, "away"), false).vanish();
    let ids = |query: &ClientQuery| -> Vec<String> {
        site.broker.clients_page(query).iter().map(|client| client.id.to_string()).collect()
    };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = ids(&ClientQuery { after, limit: 40, ..ClientQuery::default() });
        if page.is_empty() {
            break;
        }
        after = page.last().cloned();
        all.extend(page);
    }
    let expected: Vec<String> = ["away".to_owned()]
        .into_iter()
        .chain((0..250).map(|n| format!("dev-{n:03}")))
        .chain(["other".to_owned()])
        .collect();
    assert_eq!(all, expected);
    let some = ClientQuery { prefix: "dev-01".into(), limit: 3, ..ClientQuery::default() };
    assert_eq!(ids(&some), ["dev-010", "dev-011", "dev-012"]);
    let away = ClientQuery { connected: Some(false), limit: 9, ..ClientQuery::default() };
    assert_eq!(ids(&away), ["away"]);
    // Of one in a page the subscriptions are counted, of one alone they are shown.
    let other = ClientQuery { prefix: "other".into(), limit: 1, ..ClientQuery::default() };
    let page = site.broker.clients_page(&other);
    assert_eq!((page[0].subscription_count, page[0].subscriptions.len()), (2, 0));
    assert_eq!(site.broker.client("other").unwrap().subscriptions.len(), 2);
    wires[0].silent();
}

/// Everything that a filter matches, page by page.
fn retained(site: &Site, filter: &str) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None::<Box<str>>);
    loop {
        let page = site.broker.retained(filter, after.as_deref(), 2).unwrap();
        all.extend(page.messages.iter().map(|message| message.topic.to_string()));
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

#[test]
fn retained_messages_are_shown_as_they_are() {
    let site = site();
    for topic in ["p/1", "p/2", "p", "q"] {
        site.publish(Publish::new(topic, topic).qos(1, 1).retained());
    }
    let expiring = Publish::new("p/3", [0xff]).retained().with(&seconds(0x02, 100));
    site.publish(expiring);
    assert_eq!(retained(&site, "p/#"), ["p", "p/1", "p/2", "p/3"]);
    assert_eq!(retained(&site, "#").len(), 5, "nothing of the broker's own");
    site.subscriber(V5, "sys", "$SYS/broker/version", 0).packet();
    assert!(retained(&site, "$SYS/#").contains(&"$SYS/broker/version".to_owned()));
    let page = site.broker.retained("+/3", None, 10).unwrap();
    let message = &page.messages[0];
    assert_eq!((message.qos as u8, &message.payload[..]), (0, &[0xff][..]));
    assert!(message.expires_in.is_some_and(|left| (90..=100).contains(&left)), "{message:?}");
    for wrong in ["", "a#", "$share/g/a"] {
        let refused = site.broker.retained(wrong, None, 10).unwrap_err();
        assert_eq!(refused.kind, ReasonKind::TopicNameInvalid, "{wrong:?}");
    }
}

/// They are gone for who subscribes later, also after a restart; who is subscribed hears nothing.
#[test]
fn retained_messages_are_removed_by_filter() {
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut subscriber = site.subscriber(V5, "s", "#", 0);
    for n in 0..600 {
        let topic = format!("p/{n}/x");
        site.publish(Publish::new(&topic, "1").retained());
        subscriber.expect_publish(Publish::new(&topic, "1"));
    }
    site.publish(Publish::new("q", "2").qos(1, 1).retained());
    subscriber.expect_publish(Publish::new("q", "2"));
    assert_eq!(site.broker.remove_retained("p/+/y"), Ok(0));
    assert_eq!(site.broker.remove_retained("p/+/x"), Ok(600));
    subscriber.silent();
    assert_eq!(retained(&site, "#"), ["q"]);
    assert_eq!(site.broker.counters().retained_messages, 1);
    let refused = site.broker.remove_retained("$SYS/#").unwrap_err();
    assert_eq!(refused.kind, ReasonKind::NotAuthorized);
    // A publish whose acknowledgement proves that the log is written up to here.
    site.publish(Publish::new("r", "3").qos(1, 1).retained());
    let again = site_on(Settings::default(), &disk.after_kill());
    assert_eq!(retained(&again, "#"), ["q", "r"]);
    // `#` is everything but the broker's own, which are there when somebody hears of them.
    again.subscriber(V5, "sys", "$SYS/broker/version", 0).packet();
    assert_eq!(again.broker.remove_retained("#"), Ok(2));
    assert!(!retained(&again, "$SYS/#").is_empty());
}

/// They would be back after a restart, so nobody is told that they are gone.
#[test]
fn nothing_is_removed_while_the_log_cannot_be_written() {
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    site.publish(Publish::new("t", "x").qos(1, 1).retained());
    disk.set_full(true);
    let mut wire = site.client(V5, "p");
    wire.publish(Publish::new("t", "y").qos(1, 1).retained());
    assert_eq!(wire.packet()[4], 0x97, "the log is full");
    let refused = site.broker.remove_retained("#").unwrap_err();
    assert_eq!(refused.kind, ReasonKind::ServerBusy);
    assert_eq!(retained(&site, "#"), ["t"]);
    disk.set_full(false);
    eventually("the log is written", || site.broker.remove_retained("#").is_ok());
    assert!(retained(&site, "#").is_empty());
}

/// Ready is who lets clients in: not before, and not during the goodbye.
#[test]
fn it_is_ready_from_the_first_client_to_the_stop() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let server = broker::Server::start(Settings::default(), Vec::new()).unwrap();
    assert_eq!(server.ready(), Err(broker::NOT_OPEN.into()));

    let site = site();
    site.client(V5, "first").leave();
    assert_eq!(site.server.ready(), Ok(()));
    let mut connected = [site.client(V5, "new"), site.client(V4, "old")];
    site.cancel.cancel();
    for wire in &mut connected {
        wire.ended(0x8b);
    }
    assert_eq!(site.server.ready(), Err("the broker stops".into()));
}

/// [MQTT-3.1.2-8]: nobody who is connected has said goodbye when the broker stops, so their wills
/// are published; those who are told goodbye themselves may miss them, what lasts has them.
#[test]
fn a_stop_publishes_the_wills_of_who_is_connected() {
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut waiting = site.enter(&Connect::lasting(V5, "waiting"), false);
    waiting.subscribe("w/#", 1);
    waiting.vanish();
    let will = |topic| Will { qos: 1, retain: true, ..Will::new(topic, "gone") };
    let mut connected = [
        site.enter(&Connect::new(V5, "a").will(will("w/a")), false),
        site.enter(&Connect::new(V4, "b").will(will("w/b")), false),
    ];
    // One that says goodbye takes it along.
    site.enter(&Connect::new(V5, "c").will(will("w/c")), false).leave();
    site.cancel.cancel();
    for wire in &mut connected {
        wire.ended(0x8b);
    }
    let waiting = || site.broker.client("waiting").unwrap().queued_messages;
    eventually("both wills are there", || waiting() == 2);
    drop(site);
    let site = site_on(Settings::default(), &disk.after_kill());
    let mut waiting = site.enter(&Connect::lasting(V5, "waiting"), true);
    let mut topics = [waiting.received().topic, waiting.received().topic];
    topics.sort();
    assert_eq!(topics, ["w/a", "w/b"]);
    waiting.silent();
    assert_eq!(retained(&site, "w/#"), ["w/a", "w/b"]);
}
