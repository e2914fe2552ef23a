use super::*;
use crate::retained::Stored;
use bytes::Bytes;

/// A publish that is retained.
fn publish(retained: &Retained, topic: &str, qos: Qos) -> Delivery {
    let make = |sequence| {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from_static(b"x"),
            qos,
            retain: true,
            properties: None,
            publisher: 1,
            sequence,
            expires: None,
        })
    };
    let Stored::Kept(message) = retained.store(false, make) else { panic!("no room") };
    Delivery { id: 0, qos, message, retain: false, subscriptions: None, share: None }
}

fn subscribed(retained: &Retained, filter: &str, new: bool) -> Backlog {
    let mut backlog = Backlog::default();
    let owed = Owed {
        filter: filter.into(),
        qos: Qos::AtLeastOnce,
        identifier: None,
        newest: retained.newest(),
        after: None,
    };
    backlog.subscribe(owed, new, 7, 1);
    backlog
}

/// What is sent until nothing is left.
fn rest(backlog: &mut Backlog, retained: &Retained) -> Vec<u64> {
    let mut places = Vec::new();
    loop {
        match backlog.next(retained, true) {
            Next::Send(delivery, 7) => places.push(delivery.message.sequence),
            Next::Send(..) => panic!("another one"),
            Next::Served(number) => assert_eq!(number, 7),
            Next::Later => {}
            Next::Nothing => return places,
        }
    }
}

#[test]
fn it_begins_behind_the_suback_and_waits_for_room() {
    let retained = Retained::new(Arc::default());
    for n in 0..200 {
        publish(&retained, &format!("r/{n}"), Qos::AtLeastOnce);
    }
    let mut backlog = subscribed(&retained, "r/#", true);
    assert!(matches!(backlog.next(&retained, true), Next::Nothing), "no SUBACK yet");
    backlog.acknowledged(2);
    assert!(matches!(backlog.next(&retained, true), Next::Nothing), "that was another one");
    backlog.acknowledged(1);
    assert!(matches!(backlog.next(&retained, false), Next::Nothing), "no room");
    assert_eq!(backlog.serving[0].page.len(), PAGE, "and no more is held than a page");
    assert_eq!(rest(&mut backlog, &retained).len(), 200);
    assert!(backlog.serving.is_empty());
}

#[test]
fn of_two_copies_the_first_is_sent() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let retained = Retained::new(Arc::default());
        let (first, second) = (publish(&retained, "r/1", qos), publish(&retained, "r/2", qos));
        let mut backlog = subscribed(&retained, "r/#", true);
        backlog.acknowledged(1);
        // The first comes alive before, the second after.
        assert!(backlog.lets_pass(&first, &retained));
        assert_eq!(rest(&mut backlog, &retained), [second.message.sequence]);
        assert!(!backlog.lets_pass(&second, &retained));
        assert!(!backlog.is_over(), "copies may still come");
    }
}

/// Whichever comes first: what is promised at QoS 1 is not done with a copy at QoS 0.
#[test]
fn a_copy_at_a_lower_qos_does_not_stand_for_one_at_a_higher() {
    const LOW: Qos = Qos::AtMostOnce;
    const HIGH: Qos = Qos::AtLeastOnce;
    for (granted, live, both) in [(LOW, HIGH, true), (HIGH, LOW, true), (LOW, LOW, false)] {
        for live_first in [true, false] {
            let retained = Retained::new(Arc::default());
            let message = publish(&retained, "r", HIGH);
            let place = message.message.sequence;
            let live = Delivery { qos: live, ..message };
            let mut backlog = subscribed(&retained, "#", true);
            backlog.serving[0].owed.qos = granted;
            backlog.acknowledged(1);
            if live_first {
                assert!(backlog.lets_pass(&live, &retained));
                // One at the higher QoS stands for both.
                let again = both && granted == HIGH;
                let expected: &[u64] = if again { &[place] } else { &[] };
                assert_eq!(rest(&mut backlog, &retained), expected);
            } else {
                assert_eq!(rest(&mut backlog, &retained), [place]);
                let again = both && live.qos == HIGH;
                assert_eq!(backlog.lets_pass(&live, &retained), again);
            }
        }
    }
}

#[test]
fn what_is_newer_than_the_subscription_comes_alive() {
    let retained = Retained::new(Arc::default());
    let old = publish(&retained, "r", Qos::AtMostOnce);
    let mut backlog = subscribed(&retained, "r", true);
    backlog.acknowledged(1);
    let new = publish(&retained, "r", Qos::AtMostOnce);
    assert!(rest(&mut backlog, &retained).is_empty());
    assert!(backlog.lets_pass(&new, &retained));
    assert!(backlog.lets_pass(&old, &retained), "nothing was sent that it would come behind");
}

#[test]
fn an_outdated_copy_is_due_only_where_it_was_promised() {
    for new in [true, false] {
        let retained = Retained::new(Arc::default());
        let old = [Qos::AtMostOnce, Qos::AtLeastOnce].map(|qos| publish(&retained, "r", qos));
        publish(&retained, "r", Qos::AtMostOnce);
        let mut backlog = subscribed(&retained, "#", new);
        backlog.acknowledged(1);
        for served in [false, true] {
            // To a subscription that was there before, a live copy was owed anyway.
            assert_eq!(backlog.lets_pass(&old[0], &retained), !new, "{new} {served}");
            assert!(backlog.lets_pass(&old[1], &retained));
            assert_eq!(rest(&mut backlog, &retained).len(), usize::from(!served));
        }
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let retained = Retained::new(Arc::default());
    let mut backlog = Backlog::default();
    for _ in 0..2 * FILTERS {
        publish(&retained, "r", Qos::AtMostOnce);
        let one = subscribed(&retained, "r", true).serving.pop_front().unwrap();
        backlog.subscribe(one.owed, true, one.number, 1);
        backlog.acknowledged(1);
        rest(&mut backlog, &retained);
    }
    assert!(backlog.sent.filters.len() <= FILTERS);
    assert!(backlog.sent.places.len() <= RECENT as usize);
    backlog.sent.until = Some(Instant::now());
    assert!(backlog.is_over());
}

/// Who comes back is sent nothing that is retained at QoS 0, and to find that out takes time too.
#[test]
fn others_have_their_turn_between_pages_of_which_nothing_is_sent() {
    let retained = Retained::new(Arc::default());
    for n in 0..4 * PAGE {
        publish(&retained, &format!("r/{n}"), Qos::AtMostOnce);
    }
    let mut backlog = subscribed(&retained, "r/#", true);
    backlog.acknowledged(1);
    backlog.keep_promised();
    let turns = std::iter::from_fn(|| match backlog.next(&retained, true) {
        Next::Later => Some(()),
        Next::Served(7) => None,
        _ => panic!("nothing is promised"),
    });
    assert!(turns.count() >= 3);
}

/// What comes when the client is back comes alive, and not once more as the retained one.
#[test]
fn of_qos_0_what_found_the_session_away_is_sent() {
    let retained = Retained::new(Arc::default());
    let promised = publish(&retained, "r/1", Qos::AtLeastOnce);
    publish(&retained, "r/2", Qos::AtLeastOnce);
    let mut backlog = subscribed(&retained, "r/#", true);
    backlog.acknowledged(1);
    backlog.keep_promised();
    let missed = publish(&retained, "r/2", Qos::AtMostOnce);
    backlog.resume(retained.newest());
    publish(&retained, "r/3", Qos::AtMostOnce);
    assert_eq!(rest(&mut backlog, &retained), [promised.message.sequence, missed.message.sequence]);
}
