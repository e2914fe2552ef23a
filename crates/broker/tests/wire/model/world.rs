//! One client with its session, another that publishes, and a third that counts.

use super::Step;
use crate::support::*;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

pub const TOPICS: [&str; 3] = ["a", "b", "a/c"];
pub const FILTERS: [&str; 5] = ["a", "b", "+", "a/#", "#"];
pub const EVERYTHING: usize = 4;
/// The broker's Receive Maximum, and its own bound where a client of 3.1.1 names none.
pub const INFLIGHT: u16 = 5;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which filter matches which topic: the standard's words, written out.
const MATCHES: [[bool; 3]; 5] = [
    [true, false, false],
    [false, true, false],
    [true, true, false],
    [true, false, true],
    [true, true, true],
];

/// One message for the client, at the QoS at which it gets it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Copy {
    number: u32,
    topic: usize,
    qos: u8,
}

/// How far the client's acknowledgement has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Sent,
    Released,
}

/// A copy whose exchange has not ended.
#[derive(Debug)]
struct Flight {
    id: u16,
    copy: Copy,
    stage: Stage,
    /// Its PUBLISH came on this connection.
    here: bool,
}

#[derive(Debug, Default)]
struct Session {
    lasting: bool,
    /// By filter: QoS and No Local.
    subscriptions: BTreeMap<usize, (u8, bool)>,
    queue: VecDeque<Copy>,
    flights: Vec<Flight>,
    /// The client's own QoS 2 publishes that it has not released, by packet id.
    received: BTreeMap<u16, (u32, usize)>,
}

struct Connection {
    wire: Wire,
    window: usize,
    /// QoS 0 copies that are due.
    lossy: VecDeque<Copy>,
    /// PUBRELs and PUBLISHes of the last connection that are due again.
    releases: VecDeque<u16>,
    resend: VecDeque<u16>,
}

pub struct World<'a> {
    site: &'a Site,
    name: String,
    session: Option<Session>,
    connection: Option<Connection>,
    publisher: Wire,
    /// Sees everything at QoS 0, so that nothing is published twice or not at all.
    counter: Wire,
    number: u32,
}

static WORLDS: AtomicU32 = AtomicU32::new(0);

impl<'a> World<'a> {
    pub fn new(site: &'a Site) -> Self {
        let name = format!("world-{}", WORLDS.fetch_add(1, Ordering::Relaxed));
        World {
            site,
            session: None,
            connection: None,
            publisher: site.client(V4, &format!("{name}/publisher")),
            counter: site.subscriber(V4, &format!("{name}/counter"), &format!("{name}/#"), 0),
            number: 0,
            name,
        }
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Connect { version, clean, lasting, window } => {
                self.connect(version, clean, lasting, window);
            }
            Step::Vanish => self.vanish(),
            Step::Leave { end } => self.leave(end),
            Step::Subscribe { filter, qos, no_local } => self.subscribe(filter, qos, no_local),
            Step::Unsubscribe { filter } => self.unsubscribe(filter),
            Step::Publish { topic, qos } => self.publish(topic, qos),
            Step::Own { topic, qos } => self.own(topic, qos),
            Step::OwnCut { topic, qos } => self.own_cut(topic, qos),
            Step::OwnLost { topic, at_qos_2 } => self.own_lost(topic, at_qos_2),
            Step::OwnAgain { pick } => self.own_again(pick),
            Step::OwnRelease { pick } => self.own_release(pick),
            Step::Acknowledge { pick, twice } => self.acknowledge(pick, twice),
            Step::AcknowledgeLost { pick } => self.acknowledge_lost(pick),
            Step::Refuse { pick } => self.refuse(pick),
            Step::Confuse { pick } => self.confuse(pick),
        }
        if let (Some(session), Some(connection)) = (&mut self.session, &mut self.connection) {
            let answers = connection.hear(session, &self.name, 0);
            assert!(answers.is_empty(), "unasked: {answers:02x?}");
        }
    }

    /// The client comes back, acknowledges everything, and has got everything.
    pub fn end(mut self) {
        if self.session.is_some() {
            self.step(Step::Connect { version: V5, clean: false, lasting: true, window: 2 });
            while self.session.as_ref().is_some_and(|session| !session.flights.is_empty()) {
                self.step(Step::Acknowledge { pick: 0, twice: false });
            }
            while self.session.as_ref().is_some_and(|session| !session.received.is_empty()) {
                self.step(Step::OwnRelease { pick: 0 });
            }
            let session = self.session.as_ref().unwrap();
            assert!(session.queue.is_empty(), "never sent: {:?}", session.queue);
        }
        self.connect(V5, true, false, 1);
        let connection = self.connection.take().unwrap();
        connection.wire.leave();
        self.counter.silent();
    }

    fn topic(&self, topic: usize) -> String {
        format!("{}/{}", self.name, TOPICS[topic])
    }

    /// The model and its client, where there is one.
    fn connected(&mut self) -> Option<(&mut Session, &mut Connection, &str)> {
        Some((self.session.as_mut()?, self.connection.as_mut()?, &self.name))
    }

    fn connect(&mut self, version: u8, clean: bool, lasting: bool, window: u16) {
        // For 3.1.1 a session lasts if it does not begin clean, and the window is the broker's.
        let (lasting, window) =
            if version == V5 { (lasting, window.min(INFLIGHT)) } else { (!clean, INFLIGHT) };
        let mut connect = Connect { clean, ..Connect::new(version, &self.name) };
        if version == V5 {
            let expiry = if lasting { 1000 } else { 0 };
            let maximum = [&[0x21][..], &window.to_be_bytes()].concat();
            connect = connect.with(&seconds(0x11, expiry)).with(&maximum);
        }
        let before = self.connection.take();
        if before.is_some() {
            self.disconnected();
        }
        let present = self.session.is_some() && !clean;
        let mut wire = self.site.enter(&connect, present);
        wire.patience(PATIENCE);
        if let Some(mut before) = before {
            before.wire.ended(0x8e);
        }
        if !present {
            self.session = Some(Session::default());
        }
        let session = self.session.as_mut().unwrap();
        session.lasting = lasting;
        let mut connection = Connection {
            wire,
            window: window.into(),
            lossy: VecDeque::new(),
            releases: VecDeque::new(),
            resend: VecDeque::new(),
        };
        for flight in &mut session.flights {
            flight.here = false;
            match flight.stage {
                Stage::Sent => connection.resend.push_back(flight.id),
                Stage::Released => connection.releases.push_back(flight.id),
            }
        }
        connection.hear(session, &self.name, 0);
        self.connection = Some(connection);
    }

    /// The connection is no more.
    fn disconnected(&mut self) {
        self.connection = None;
        if self.session.as_ref().is_some_and(|session| !session.lasting) {
            self.session = None;
        }
    }

    /// What the broker still sends arrives and is never answered.
    fn vanish(&mut self) {
        let Some((session, connection, name)) = self.connected() else { return };
        connection.wire.cut();
        while let Some(packet) = connection.wire.next() {
            match packet[0] >> 4 {
                3 => {
                    let received = Received::parse(&packet, connection.wire.version);
                    connection.on_publish(session, &received, name);
                }
                6 => session.on_release(&packet),
                _ => {}
            }
        }
        self.disconnected();
    }

    fn leave(&mut self, end: bool) {
        let Some(mut connection) = self.connection.take() else { return };
        let end = end && connection.wire.version == V5;
        let with_expiry = frame(0xe0, &[&[0, 5][..], &seconds(0x11, 0)].concat());
        connection.wire.send(if end { &with_expiry } else { &DISCONNECT });
        connection.wire.closed();
        if let (true, Some(session)) = (end, &mut self.session) {
            session.lasting = false;
        }
        self.disconnected();
    }

    fn subscribe(&mut self, filter: usize, qos: u8, no_local: bool) {
        let Some((session, connection, name)) = self.connected() else { return };
        let version = connection.wire.version;
        let no_local = no_local && version == V5;
        let options = qos | if no_local { NO_LOCAL } else { 0 };
        let text = format!("{name}/{}", FILTERS[filter]);
        connection.wire.send(&subscribe(version, 77, &[], &[(&text, options)]));
        let answers = connection.hear(session, name, 1);
        assert_eq!(answers, [suback(version, 77, &[qos])]);
        session.subscriptions.insert(filter, (qos, no_local));
    }

    fn unsubscribe(&mut self, filter: usize) {
        let Some((session, connection, name)) = self.connected() else { return };
        let version = connection.wire.version;
        let text = format!("{name}/{}", FILTERS[filter]);
        connection.wire.send(&unsubscribe(version, 78, &[&text]));
        let answers = connection.hear(session, name, 1);
        let code = if session.subscriptions.remove(&filter).is_some() { 0 } else { 0x11 };
        assert_eq!(answers, [unsuback(version, 78, &[code])]);
    }

    /// A new message is published: who is to get it.
    fn distribute(&mut self, topic: usize, qos: u8, own: bool) -> u32 {
        self.number += 1;
        let number = self.number;
        let Some(session) = &mut self.session else { return number };
        let matching = session
            .subscriptions
            .iter()
            .filter(|(filter, (_, no_local))| MATCHES[**filter][topic] && !(own && *no_local));
        let Some(granted) = matching.map(|(_, (granted, _))| *granted).max() else { return number };
        let copy = Copy { number, topic, qos: qos.min(granted) };
        match (&mut self.connection, copy.qos) {
            (Some(connection), 0) => connection.lossy.push_back(copy),
            (None, 0) => {}
            _ => session.queue.push_back(copy),
        }
        number
    }

    /// The counter has got this message and no other.
    fn count(&mut self, number: u32, topic: usize) {
        self.counter.expect_publish(Publish::new(&self.topic(topic), number.to_string()));
    }

    fn publish(&mut self, topic: usize, qos: u8) {
        let number = self.distribute(topic, qos, false);
        let publish = Publish::new(&self.topic(topic), number.to_string()).qos(qos, 1);
        self.publisher.publish(publish);
        match qos {
            0 => self.publisher.silent(),
            1 => self.publisher.expect(&puback(1)),
            _ => {
                self.publisher.expect(&pubrec(1));
                self.publisher.send(&pubrel(1));
                self.publisher.expect(&pubcomp(1));
            }
        }
        self.count(number, topic);
    }

    /// A packet id for a publish of the client's own; `None` where it may send none now.
    fn own_id(&self) -> Option<u16> {
        let received = &self.session.as_ref()?.received;
        self.connection.as_ref()?;
        let unused = (1..).find(|id| !received.contains_key(id))?;
        (received.len() < INFLIGHT.into()).then_some(unused)
    }

    fn own_publish(&self, topic: usize, number: u32, qos: u8, id: u16) -> Publish {
        Publish::new(&self.topic(topic), number.to_string()).qos(qos, id)
    }

    fn own(&mut self, topic: usize, qos: u8) {
        let Some(id) = self.own_id() else { return };
        let number = self.distribute(topic, qos, true);
        let publish = self.own_publish(topic, number, qos, id);
        let Some((session, connection, name)) = self.connected() else { return };
        connection.wire.publish(publish);
        let answers = connection.hear(session, name, usize::from(qos > 0));
        match qos {
            0 => {}
            1 => assert_ack(&answers, connection.wire.version, puback(id)),
            _ => {
                assert_ack(&answers, connection.wire.version, pubrec(id));
                session.received.insert(id, (number, topic));
            }
        }
        self.count(number, topic);
    }

    fn own_cut(&mut self, topic: usize, qos: u8) {
        let Some(id) = self.own_id() else { return };
        let publish = self.own_publish(topic, 0, qos, id);
        let Some(connection) = &mut self.connection else { return };
        let bytes = publish.bytes(connection.wire.version);
        connection.wire.send(&bytes[..bytes.len() - 1]);
        self.vanish();
        self.counter.silent();
    }

    fn own_lost(&mut self, topic: usize, at_qos_2: bool) {
        let Some(id) = self.own_id() else { return };
        let qos = if at_qos_2 { 2 } else { 0 };
        let number = self.distribute(topic, qos, true);
        let publish = self.own_publish(topic, number, qos, id);
        let Some((session, connection, _)) = self.connected() else { return };
        connection.wire.publish(publish);
        if at_qos_2 {
            session.received.insert(id, (number, topic));
        }
        self.vanish();
        self.count(number, topic);
    }

    fn own_again(&mut self, pick: usize) {
        let Some((session, ..)) = self.connected() else { return };
        let count = session.received.len().max(1);
        let Some((&id, &(number, topic))) = session.received.iter().nth(pick % count) else {
            return;
        };
        let publish = self.own_publish(topic, number, 2, id).dup();
        let Some((session, connection, name)) = self.connected() else { return };
        connection.wire.publish(publish);
        assert_eq!(connection.hear(session, name, 1), [pubrec(id)]);
        self.counter.silent();
    }

    fn own_release(&mut self, pick: usize) {
        let Some((session, connection, name)) = self.connected() else { return };
        let count = session.received.len();
        let known = session.received.keys().nth(pick % count.max(1)).copied();
        let id = known.unwrap_or(4711);
        connection.wire.send(&pubrel(id));
        let answers = connection.hear(session, name, 1);
        let unknown = known.is_none() && connection.wire.version == V5;
        let expected = pubcomp(id);
        assert_eq!(answers, [if unknown { with_code(expected, 0x92) } else { expected }]);
        session.received.remove(&id);
    }

    fn acknowledge(&mut self, pick: usize, twice: bool) {
        let Some((session, connection, name)) = self.connected() else { return };
        for _ in 0..=usize::from(twice) {
            let Some((ack, answer)) = session.acknowledge(pick, &mut connection.resend) else {
                return;
            };
            connection.wire.send(&ack);
            let answers = connection.hear(session, name, answer.iter().len());
            assert_eq!(answers, Vec::from_iter(answer));
        }
    }

    fn acknowledge_lost(&mut self, pick: usize) {
        let Some((session, connection, _)) = self.connected() else { return };
        let Some((ack, answer)) = session.acknowledge(pick, &mut connection.resend) else { return };
        connection.wire.send(&ack);
        if let Some(release) = answer {
            // With a log it may be that the PUBREC is forgotten; only a PUBREL says that it is not.
            session.flight(id_of(&release)).stage = Stage::Sent;
        }
        self.vanish();
    }

    fn refuse(&mut self, pick: usize) {
        let Some((session, connection, _)) = self.connected() else { return };
        if connection.wire.version == V4 {
            return;
        }
        let Some(at) = pick.checked_rem(session.flights.len()) else { return };
        let Flight { id, copy, stage, .. } = session.flights[at];
        if stage == Stage::Released {
            return;
        }
        let ack = if copy.qos == 1 { puback(id) } else { pubrec(id) };
        connection.wire.send(&with_code(ack, 0x83));
        session.flights.remove(at);
        connection.resend.retain(|waiting| *waiting != id);
    }

    fn confuse(&mut self, pick: usize) {
        let Some((session, connection, name)) = self.connected() else { return };
        let version = connection.wire.version;
        let wrong = match pick.checked_rem(session.flights.len()).map(|at| &session.flights[at]) {
            None => puback(4711),
            Some(flight) if flight.copy.qos == 1 && pick.is_multiple_of(2) => pubcomp(flight.id),
            Some(flight) if flight.copy.qos == 1 => pubrec(flight.id),
            Some(flight) if flight.stage == Stage::Sent && pick.is_multiple_of(2) => {
                pubcomp(flight.id)
            }
            Some(flight) => puback(flight.id),
        };
        connection.wire.send(&wrong);
        if wrong[0] == 0x50 {
            let answer = pubrel(id_of(&wrong));
            let expected = if version == V5 { with_code(answer, 0x92) } else { answer };
            assert_eq!(connection.hear(session, name, 1), [expected]);
        }
    }
}

/// One acknowledgement; MQTT 5 may say that nobody wanted the message.
fn assert_ack(answers: &[Vec<u8>], version: u8, expected: Vec<u8>) {
    let nobody = with_code(expected.clone(), 0x10);
    let good =
        answers.len() == 1 && (answers[0] == expected || version == V5 && answers[0] == nobody);
    assert!(good, "{answers:02x?} instead of {expected:02x?}");
}

/// The packet id of an acknowledgement.
fn id_of(ack: &[u8]) -> u16 {
    u16::from_be_bytes([ack[2], ack[3]])
}

impl Session {
    fn flight(&mut self, id: u16) -> &mut Flight {
        self.flights.iter_mut().find(|flight| flight.id == id).expect("what is in flight")
    }

    fn on_release(&mut self, packet: &[u8]) {
        let flight = self.flight(id_of(packet));
        assert_eq!(flight.copy.qos, 2);
        flight.stage = Stage::Released;
    }

    /// The next acknowledgement of something in flight, and the answer that it asks for.
    fn acknowledge(
        &mut self,
        pick: usize,
        resend: &mut VecDeque<u16>,
    ) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let at = pick.checked_rem(self.flights.len())?;
        let flight = &mut self.flights[at];
        let id = flight.id;
        resend.retain(|waiting| *waiting != id);
        Some(match (flight.copy.qos, flight.stage) {
            (1, _) => {
                self.flights.remove(at);
                (puback(id), None)
            }
            (_, Stage::Sent) => {
                flight.stage = Stage::Released;
                (pubrec(id), Some(pubrel(id)))
            }
            _ => {
                self.flights.remove(at);
                (pubcomp(id), None)
            }
        })
    }
}

impl Connection {
    /// Whether the broker has room for one more PUBLISH, by its own count.
    fn has_room(&self, session: &Session) -> bool {
        session.flights.len() - self.resend.len() < self.window
    }

    /// Whether something is still to come.
    fn is_due(&self, session: &Session) -> bool {
        !self.lossy.is_empty()
            || !self.releases.is_empty()
            || self.has_room(session) && !(self.resend.is_empty() && session.queue.is_empty())
    }

    /// Reads what is due, and so many answers; then nothing more comes.
    fn hear(&mut self, session: &mut Session, name: &str, answers: usize) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let mut pings = 0;
        loop {
            if heard.len() >= answers && !self.is_due(session) {
                if pings == 2 {
                    return heard;
                }
                self.wire.send(&PINGREQ);
            }
            let packet = self.wire.packet();
            match packet[0] >> 4 {
                3 => self.on_publish(session, &Received::parse(&packet, self.wire.version), name),
                6 if self.releases.front() == Some(&id_of(&packet)) => {
                    self.releases.pop_front();
                }
                13 => pings += 1,
                _ => heard.push(packet),
            }
        }
    }

    fn on_publish(&mut self, session: &mut Session, received: &Received, name: &str) {
        let Received { first, topic, id, payload, .. } = received;
        let topic = topic.strip_prefix(name).and_then(|topic| topic.strip_prefix('/'));
        let topic = topic.and_then(|topic| TOPICS.iter().position(|known| *known == topic));
        let topic = topic.expect("a topic of this world");
        let number = std::str::from_utf8(payload).unwrap().parse().unwrap();
        let copy = Copy { number, topic, qos: first >> 1 & 3 };
        assert_eq!(first & 1, 0, "nothing is retained here");
        let dup = first & 8 != 0;
        if copy.qos == 0 {
            assert_eq!((self.lossy.pop_front(), dup), (Some(copy), false));
            return;
        }
        if dup {
            assert_eq!(self.resend.pop_front(), Some(*id), "what is sent again, in order");
            let flight = session.flight(*id);
            assert_eq!((flight.copy, flight.stage), (copy, Stage::Sent), "sent again");
            flight.here = true;
        } else {
            assert!(self.resend.is_empty(), "{copy:?} ahead of what is sent again");
            assert_eq!(session.queue.pop_front(), Some(copy), "new copies in order, each once");
            assert!(session.flights.iter().all(|flight| flight.id != *id), "{id} is in flight");
            assert_ne!(*id, 0);
            session.flights.push(Flight { id: *id, copy, stage: Stage::Sent, here: true });
        }
        let here = session.flights.iter().filter(|flight| flight.here).count();
        assert!(here <= self.window, "{here} in flight, {} allowed", self.window);
    }
}
