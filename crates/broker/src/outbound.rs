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
