//! Packet ids and the in-flight window of what the broker sends at QoS 1 and 2.

use hook::Qos;
use std::collections::VecDeque;

use crate::{message::Delivery, queue::Queue};

/// What a packet id stands for.
#[derive(Debug)]
pub(crate) enum Content {
    /// An ordinary message: sent again, with DUP, on the session's next connection.
    Delivery(Delivery),
    /// A plugin's message: it belongs to one connection and ends with it.
    Plugin,
}

/// How far a publish has come.
#[derive(Debug)]
enum Stage {
    /// PUBLISH sent; QoS 1 waits for PUBACK [MQTT-4.3.2-3], QoS 2 for PUBREC [MQTT-4.3.3-3].
    Published(Content, Qos),
    /// PUBREL sent, and never the PUBLISH again [MQTT-4.3.3-6]; waits for PUBCOMP [MQTT-4.3.3-5]. The number of the delivery stays.
    Released(u64),
}

impl Stage {
    /// The number of the delivery in the log; 0 where it does not stand there.
    fn delivery(&self) -> u64 {
        match self {
            Stage::Published(Content::Delivery(delivery), _) => delivery.id,
            Stage::Published(Content::Plugin, _) => 0,
            Stage::Released(delivery) => *delivery,
        }
    }
}

/// A delivery that is over, by its number in the log; 0 where it does not stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended(pub u64);

/// What a PUBREC leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// A PUBREL.
    Release,
    /// The log hears of this delivery first, and then a PUBREL.
    Log(u64),
    /// Nothing waits under that packet id.
    Unknown,
}

/// Publishes sent and not yet acknowledged, in the order of sending.
#[derive(Debug, Default)]
pub(crate) struct Window {
    last_id: u16,
    slots: Queue<(u16, Stage)>,
}

/// What to send again when a session is resumed [MQTT-4.4.0-1].
#[derive(Debug)]
pub(crate) enum Resend {
    /// The PUBLISH, with DUP.
    Publish(Delivery),
    /// The PUBREL.
    Release,
}

impl Window {
    /// How many are in flight.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes the next free packet id for a publish [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]. The
    /// caller has seen that fewer than 65,535
    /// are in flight (`limits.inflight` is a u16), so one is free.
    pub fn send(&mut self, content: Content, qos: Qos) -> u16 {
        loop {
            // Packet ids run from 1 to 65,535 [MQTT-2.2.1-3].
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.slots.iter().any(|(id, _)| *id == self.last_id) {
                break;
            }
        }
        self.slots.push_back((self.last_id, Stage::Published(content, qos)));
        self.last_id
    }

    /// PUBACK, with whichever reason: ends a QoS 1 publish, which is for nobody else then
    /// [MQTT-4.8.2-6]. Its delivery is returned. `None` where that id waits for none.
    pub fn puback(&mut self, id: u16) -> Option<Ended> {
        self.remove(id, |stage| matches!(stage, Stage::Published(_, Qos::AtLeastOnce)))
    }

    /// PUBREC without error. A delivery that stands in the log stays as it is until that is
    /// written there, and [`Window::confirmed`] says so.
    pub fn pubrec(&mut self, id: u16) -> Confirmation {
        match self.slots.iter_mut().find(|(slot, _)| *slot == id) {
            Some((_, stage @ Stage::Published(_, Qos::ExactlyOnce))) => match stage.delivery() {
                0 => {
                    *stage = Stage::Released(0);
                    Confirmation::Release
                }
                delivery => Confirmation::Log(delivery),
            },
            // The PUBREL was lost with a connection, or the client asks twice.
            Some((_, Stage::Released(_))) => Confirmation::Release,
            _ => Confirmation::Unknown,
        }
    }

    /// The client has a QoS 2 publish, and the log says so: from now on the PUBREL counts.
    pub fn confirmed(&mut self, id: u16) {
        if let Some((_, stage)) = self.slots.iter_mut().find(|(slot, _)| *slot == id)
            && matches!(stage, Stage::Published(_, Qos::ExactlyOnce))
        {
            *stage = Stage::Released(stage.delivery());
        }
    }

    /// PUBREC with an error code: the publish has ended [MQTT-4.4.0-2].
    pub fn pubrec_refused(&mut self, id: u16) -> Option<Ended> {
        self.remove(id, |stage| matches!(stage, Stage::Published(_, Qos::ExactlyOnce)))
    }

    /// PUBCOMP: ends a QoS 2 publish. `None` where that id waits for none.
    pub fn pubcomp(&mut self, id: u16) -> Option<Ended> {
        self.remove(id, |stage| matches!(stage, Stage::Released(_)))
    }

    fn remove(&mut self, id: u16, fits: impl Fn(&Stage) -> bool) -> Option<Ended> {
        let at = self.slots.iter().position(|(slot, stage)| *slot == id && fits(stage))?;
        let (_, stage) = self.slots.remove(at)?;
        Some(Ended(stage.delivery()))
    }

    /// Takes back a publish that never left, for the session's next connection.
    pub fn take_back(&mut self, id: u16) -> Option<Delivery> {
        let at = self.slots.iter().position(|(slot, _)| *slot == id)?;
        match self.slots.remove(at)? {
            (_, Stage::Published(Content::Delivery(delivery), _)) => Some(delivery),
            _ => None,
        }
    }

    /// A QoS 2 publish that was under way when the broker ended; `None` where its PUBREL is due.
    /// In the order of sending.
    pub fn restore(&mut self, id: u16, delivery: Option<Delivery>, number: u64) {
        self.last_id = id;
        let stage = match delivery {
            Some(delivery) => Stage::Published(Content::Delivery(delivery), Qos::ExactlyOnce),
            None => Stage::Released(number),
        };
        self.slots.push_back((id, stage));
    }

    /// The connection has ended: plugin messages end with it. They are sent at QoS 1 at most,
    /// so that no half QoS 2 exchange is left behind under their packet id.
    pub fn connection_ended(&mut self) {
        self.slots.retain(|(_, stage)| !matches!(stage, Stage::Published(Content::Plugin, _)));
    }

    /// The packet ids in flight, oldest first: what to send again when the session is resumed, also
    /// what came by a shared subscription [MQTT-4.8.2-4].
    /// PUBRELs come before PUBLISHes, since they wait for no room.
    pub fn ids(&self) -> VecDeque<u16> {
        let of = |released| {
            let slots = self.slots.iter();
            slots.filter(move |(_, stage)| matches!(stage, Stage::Released(_)) == released)
        };
        of(true).chain(of(false)).map(|(id, _)| *id).collect()
    }

    /// Whether a PUBREL is what to send again.
    pub fn is_released(&self, id: u16) -> bool {
        self.slots.iter().any(|(slot, stage)| *slot == id && matches!(stage, Stage::Released(_)))
    }

    /// What to send again for a packet id that is still in flight.
    pub fn resend(&self, id: u16) -> Option<Resend> {
        match &self.slots.iter().find(|(slot, _)| *slot == id)?.1 {
            Stage::Published(Content::Delivery(delivery), _) => {
                Some(Resend::Publish(delivery.clone()))
            }
            Stage::Published(Content::Plugin, _) => None,
            Stage::Released(_) => Some(Resend::Release),
        }
    }

    /// Messages of shared subscriptions that are not acknowledged, at QoS 1: where the session ends,
    /// they are for another member. At QoS 2 they are for nobody else [MQTT-4.8.2-5].
    pub fn shared(&self) -> impl Iterator<Item = &Delivery> {
        self.slots.iter().filter_map(|(_, stage)| match stage {
            Stage::Published(Content::Delivery(delivery), Qos::AtLeastOnce) => {
                delivery.share.as_ref().map(|_| delivery)
            }
            _ => None,
        })
    }

    /// Gives a packet id up that cannot be sent again.
    pub fn forget(&mut self, id: u16) -> Option<Ended> {
        self.remove(id, |_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Share};
    use std::sync::Arc;

    /// A message with this number in the log, perhaps of a shared subscription.
    fn delivery(id: u64, qos: Qos, shared: bool) -> Delivery {
        let share = shared.then(|| Arc::new(Share("g".into())));
        let message = Message::plain(qos, "x");
        Delivery { id, message, qos, retain: false, subscriptions: None, share }
    }

    fn send(window: &mut Window, number: u64, qos: Qos, shared: bool) -> u16 {
        window.send(Content::Delivery(delivery(number, qos, shared)), qos)
    }

    #[test]
    fn what_stands_in_the_log_is_released_when_the_log_says_so() {
        let mut window = Window::default();
        let once = send(&mut window, 7, Qos::AtLeastOnce, false);
        let two = [8, 9].map(|number| send(&mut window, number, Qos::ExactlyOnce, false));
        assert_eq!(window.pubrec(two[0]), Confirmation::Log(8));
        assert!(!window.is_released(two[0]) && window.pubcomp(two[0]).is_none());
        window.confirmed(99);
        window.confirmed(once);
        assert!(![once, two[0], two[1]].map(|id| window.is_released(id)).contains(&true));
        window.confirmed(two[0]);
        let released = [once, two[0], two[1], 99].map(|id| window.is_released(id));
        assert_eq!(released, [false, true, false, false]);
        assert_eq!(window.pubrec(two[0]), Confirmation::Release);
        assert_eq!(window.ids(), [two[0], once, two[1]], "PUBRELs wait for nothing");
        assert!(matches!(window.resend(two[0]), Some(Resend::Release)));
        assert!(matches!(window.resend(two[1]), Some(Resend::Publish(it)) if it.id == 9));
        assert_eq!(window.pubcomp(two[0]), Some(Ended(8)));
        assert_eq!(window.puback(once), Some(Ended(7)));
    }

    #[test]
    fn a_publish_ends_by_a_refusal_too() {
        let mut window = Window::default();
        let once = send(&mut window, 7, Qos::AtLeastOnce, false);
        let two = send(&mut window, 8, Qos::ExactlyOnce, false);
        assert_eq!(window.pubrec_refused(once), None, "it waits for a PUBACK");
        assert_eq!(window.pubrec_refused(two), Some(Ended(8)));
        assert_eq!((window.pubrec_refused(two), window.len()), (None, 1));
        assert_eq!((window.forget(once), window.len()), (Some(Ended(7)), 0));
        assert_eq!(window.forget(once), None);
        assert!(window.resend(once).is_none());
    }

    #[test]
    fn what_never_left_is_taken_back() {
        let mut window = Window::default();
        let ids = [7, 8].map(|number| send(&mut window, number, Qos::ExactlyOnce, false));
        let plugin = window.send(Content::Plugin, Qos::AtLeastOnce);
        assert!(window.resend(plugin).is_none());
        assert!(window.take_back(99).is_none() && window.len() == 3);
        assert_eq!(window.take_back(ids[1]).map(|it| it.id), Some(8));
        assert!(window.take_back(plugin).is_none());
        assert_eq!(window.ids(), [ids[0]]);
    }

    #[test]
    fn exchanges_go_on_over_the_end_of_the_process() {
        let mut window = Window::default();
        window.restore(5, None, 7);
        window.restore(6, Some(delivery(8, Qos::ExactlyOnce, false)), 8);
        assert_eq!([5, 6].map(|id| window.is_released(id)), [true, false]);
        assert_eq!(window.pubcomp(5), Some(Ended(7)));
        assert_eq!(window.pubrec(6), Confirmation::Log(8));
        assert_eq!(send(&mut window, 9, Qos::AtLeastOnce, false), 7, "the next id");
    }

    #[test]
    fn another_member_gets_what_was_shared_at_qos_1() {
        let mut window = Window::default();
        for (number, qos, shared) in
            [(1, Qos::AtLeastOnce, false), (2, Qos::AtLeastOnce, true), (3, Qos::ExactlyOnce, true)]
        {
            send(&mut window, number, qos, shared);
        }
        window.send(Content::Plugin, Qos::AtLeastOnce);
        assert_eq!(window.shared().map(|it| it.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn ids_skip_zero_and_what_is_in_flight() {
        let mut window = Window { last_id: u16::MAX - 1, ..Window::default() };
        assert_eq!(window.send(Content::Plugin, Qos::AtLeastOnce), u16::MAX);
        assert_eq!(window.send(Content::Plugin, Qos::AtLeastOnce), 1);
        window.last_id = u16::MAX - 1;
        assert_eq!(window.send(Content::Plugin, Qos::AtLeastOnce), 2);
    }

    #[test]
    fn acknowledgements_end_only_what_waits_for_them() {
        let mut window = Window::default();
        let one = window.send(Content::Plugin, Qos::AtLeastOnce);
        let two = window.send(Content::Plugin, Qos::ExactlyOnce);
        assert_eq!(window.pubrec(one), Confirmation::Unknown);
        assert!(window.puback(two).is_none() && window.pubcomp(two).is_none());
        for _ in 0..2 {
            assert_eq!(window.pubrec(two), Confirmation::Release, "asked twice, released twice");
        }
        assert_eq!(window.puback(one), Some(Ended(0)), "out of order is fine");
        assert_eq!(window.puback(one), None, "twice is not");
        assert!(window.pubcomp(two).is_some() && window.len() == 0);
    }

    #[test]
    fn plugin_messages_end_with_the_connection() {
        let mut window = Window::default();
        window.send(Content::Plugin, Qos::AtLeastOnce);
        window.connection_ended();
        assert!(window.ids().is_empty() && window.len() == 0);
    }
}
