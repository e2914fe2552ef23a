//! AWS IoT: Jobs say what there is, streams deliver it in JSON or CBOR. `docs/dialects/aws.md`
//! is its table.
//!
//! | module | subject |
//! | --- | --- |
//! | `mod` | topics, and which of the two a message is for |
//! | `jobs` | the job that a device sees, and what it says about it |
//! | `streams` | describe, get, data |
//! | `words` | requests in JSON and in CBOR, and answers |

mod jobs;
mod streams;
mod words;

use std::sync::Arc;

use bytes::Bytes;
use hook::Qos;

use super::{
    Answer, Block, Dialect, Echo, Framing, Heard, Message, Offer, Question, Request, Rest, Said,
    Talk, Trouble, Uplink,
};
use streams::{Ask, Format};

/// What is the service's own.
const AWS: &str = "$aws/";
/// One device's: this, its name, and what it is about.
const THINGS: &str = "$aws/things/";
/// Subscriptions that a connection remembers the quality of service of.
const MAX_FILTERS: usize = 32;

/// What is tolerated; `docs/dialects/aws.md` has the list.
const QUIRKS: [&str; 7] = [
    TOPIC_NOT_SERVED,
    SDK_IN_USER_NAME,
    words::TEXT_NUMBER,
    words::UNKNOWN_KEY,
    streams::EMPTY_PAYLOAD,
    jobs::EMPTY_PAYLOAD,
    jobs::NULL_MEMBER,
];
/// A publish below `$aws/` that is about something else.
const TOPIC_NOT_SERVED: &str = "topic_not_served";
/// A user name with [`SDK`] in it.
const SDK_IN_USER_NAME: &str = "sdk_in_user_name";
/// What SDKs put behind the user name, or in its place: which SDK it is, and no secret.
const SDK: &str = "?SDK=";

/// See [the module](self).
#[derive(Default)]
pub struct Aws;

impl Dialect for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn quirks(&self) -> &'static [&'static str] {
        &QUIRKS
    }

    fn claims(&self, topic: &str) -> bool {
        topic.starts_with(AWS)
    }

    fn is_downlink(&self, filter: &str) -> bool {
        filter.starts_with(AWS)
    }

    fn asks(&self) -> bool {
        true
    }

    fn user_name<'a>(&self, given: &'a str) -> Option<(&'a str, &'static str)> {
        given.split_once(SDK).map(|(name, _)| (name, SDK_IN_USER_NAME))
    }

    fn forgery(&self, payload: &[u8]) -> Option<String> {
        jobs::is_notification(payload).then(|| "a job".to_owned())
    }

    fn chunk_size(&self, wanted: u32, image: u64, _framing: &Framing) -> Option<u32> {
        // A request says how large its blocks are.
        (image.div_ceil(u64::from(wanted.max(1))) < u64::from(u32::MAX)).then_some(wanted)
    }

    fn begin(&self, device: Option<&Arc<str>>) -> Box<dyn Talk> {
        let thing = device.cloned().unwrap_or_else(|| "".into());
        let notify: Arc<str> = format!("{THINGS}{thing}/jobs/notify").into();
        let notify_next = format!("{THINGS}{thing}/jobs/notify-next").into();
        Box::new(Conversation { thing, notify, notify_next, filters: Vec::new(), data: None })
    }
}

/// One connection.
struct Conversation {
    /// The device's name; empty for one without identity, which no topic names.
    thing: Arc<str>,
    notify: Arc<str>,
    notify_next: Arc<str>,
    filters: Vec<(Box<str>, Qos)>,
    /// The topic of blocks for what a request wanted repeated, so that they share it, and its
    /// quality of service.
    data: Option<(Arc<[u8]>, Arc<str>, Qos)>,
}

impl Conversation {
    /// With the quality of service of the subscription that it matches.
    fn say(&self, topic: &Arc<str>, payload: impl Into<hook::Payload>) -> Said {
        let qos = self.qos(topic).unwrap_or(Qos::AtMostOnce);
        Said { qos: Some(qos), ..Said::new(topic, payload) }
    }

    /// What the blocks of the last request repeat.
    fn last(&self) -> Option<&Arc<[u8]>> {
        self.data.as_ref().map(|(echo, ..)| echo)
    }

    /// To who listens: the job is gone.
    fn no_job(&self) -> Vec<Said> {
        let next = self.qos(&self.notify_next);
        let next = next.map(|_| self.say(&self.notify_next, jobs::notify_next(&self.thing, None)));
        let list = self.qos(&self.notify).map(|_| self.say(&self.notify, jobs::notify(None)));
        next.into_iter().chain(list).collect()
    }

    fn qos(&self, topic: &str) -> Option<Qos> {
        let matching = self.filters.iter().filter(|(filter, _)| matches(filter, topic));
        matching.map(|(_, qos)| *qos).max()
    }

    /// A message on a topic of this device: below `streams/` or `jobs/`.
    fn heard(&mut self, topic: &str, rest: &str, heard: &Heard<'_>) -> Uplink {
        let mut message = Message::default();
        if let Some(rest) = rest.strip_prefix("streams/")
            && let Some((stream, rest)) = rest.split_once('/')
            && let Some((verb, format)) = rest.split_once('/')
            && let Some(format) = Format::named(format)
        {
            let read = match verb {
                "get" => streams::get(stream, format, heard.payload, self.last()),
                "describe" => streams::describe(stream, format, heard.payload),
                "data" | "description" | "rejected" => {
                    return Uplink::Forged { name: format!("a stream's {verb}") };
                }
                _ => return not_served(),
            };
            message.quirks = read.quirks;
            match read.ask {
                Ask::Blocks(request) => message.requests.push(request),
                Ask::Description(question) => message.questions.push(question),
                Ask::Wrong(echo, problem) => {
                    let trouble = Trouble::Asked(problem);
                    message.says.extend(self.error(&trouble, &Some(echo)));
                }
            }
        } else if let Some(rest) = rest.strip_prefix("jobs/") {
            match jobs::read(topic, rest, heard.payload) {
                jobs::Read::Question(question, quirks) => {
                    message.questions.push(question);
                    message.quirks.extend(quirks);
                }
                jobs::Read::Wrong(wrong, payload) => {
                    message.says.push(self.say(&wrong.into(), payload));
                }
                jobs::Read::Forged => return Uplink::Forged { name: "a job".into() },
                jobs::Read::Other => return not_served(),
            }
        } else {
            return not_served();
        }
        Uplink::Message(message)
    }

    /// The same of another device: it is told, and nothing is done.
    fn foreign(&mut self, topic: &str, rest: &str) -> Uplink {
        let mut message = Message::default();
        let text = "this is another thing's topic";
        let stream = rest.strip_prefix("streams/").and_then(|rest| rest.split_once('/'));
        if let Some((stream, rest)) = stream
            && let Some(("get" | "describe", format)) = rest.split_once('/')
            && let Some(format) = Format::named(format)
        {
            let thing = topic.strip_prefix(THINGS).and_then(|rest| rest.split('/').next());
            let topic = streams::topic(thing.unwrap_or_default(), stream, "rejected", format);
            let payload = words::rejected(format, "Unauthorized", text, None);
            message.says.push(self.say(&topic, payload));
        } else if let Some(rest) = rest.strip_prefix("jobs/")
            && let jobs::Read::Question(..) = jobs::read(topic, rest, b"")
        {
            let payload = jobs::rejected("Unauthorized", text, None);
            message.says.push(self.say(&format!("{topic}/rejected").into(), payload));
        }
        message.rest = Rest::Refused(format!("{topic} is another thing's topic"));
        Uplink::Message(message)
    }
}

fn not_served() -> Uplink {
    Uplink::Message(Message { quirks: vec![TOPIC_NOT_SERVED], ..Message::default() })
}

impl Talk for Conversation {
    fn subscribed(&mut self, filter: &str, qos: Qos) {
        self.unsubscribed(filter);
        if self.filters.len() < MAX_FILTERS {
            self.filters.push((filter.into(), qos));
        }
    }

    fn unsubscribed(&mut self, filter: &str) {
        self.filters.retain(|(known, _)| **known != *filter);
        self.data = None;
    }

    fn listens(&self) -> Option<Qos> {
        self.qos(&self.notify_next).or_else(|| self.qos(&self.notify))
    }

    fn downlink(&self) -> &Arc<str> {
        &self.notify_next
    }

    fn read_request(&mut self, heard: &Heard<'_>) -> Option<Request> {
        let own = Some(&*self.thing).filter(|thing| !thing.is_empty())?;
        let rest = heard.topic.strip_prefix(THINGS)?.strip_prefix(own)?;
        let (stream, rest) = rest.strip_prefix("/streams/")?.split_once('/')?;
        let format = rest.strip_prefix("get/")?;
        let read = streams::get(stream, Format::named(format)?, heard.payload, self.last());
        match read.ask {
            Ask::Blocks(request) if read.quirks.is_empty() => Some(request),
            _ => None,
        }
    }

    fn read(&mut self, heard: &Heard<'_>) -> Uplink {
        let Some((thing, rest)) =
            heard.topic.strip_prefix(THINGS).and_then(|rest| rest.split_once('/'))
        else {
            return not_served();
        };
        if *thing == *self.thing && !thing.is_empty() {
            self.heard(heard.topic, rest, heard)
        } else {
            self.foreign(heard.topic, rest)
        }
    }

    fn manifest(&mut self, offer: &Offer<'_>, _framing: &Framing) -> Said {
        if self.qos(&self.notify_next).is_some() {
            return self.say(&self.notify_next, jobs::notify_next(&self.thing, Some(offer)));
        }
        self.say(&self.notify, jobs::notify(Some(offer)))
    }

    fn beside(&mut self, offer: &Offer<'_>) -> Option<Said> {
        let both = self.qos(&self.notify_next).and(self.qos(&self.notify));
        both.map(|_| self.say(&self.notify, jobs::notify(Some(offer))))
    }

    fn withdrawn(&mut self) -> Vec<Said> {
        self.no_job()
    }

    fn answer(&mut self, question: &Question, offer: Option<&Offer<'_>>) -> Answer {
        if let Some((topic, payload)) = streams::described(&self.thing, question, offer) {
            return Answer { says: vec![self.say(&topic, payload)], ..Answer::default() };
        }
        let answered = jobs::answer(&self.thing, question, offer);
        let mut says = vec![self.say(&answered.topic.into(), answered.payload)];
        if answered.ends {
            says.extend(self.no_job());
        }
        Answer {
            says,
            note: answered.note,
            report: answered.report,
            announces: offer.is_some() && answered.shows,
        }
    }

    fn block(&mut self, block: Block<'_>, data: Bytes) -> Said {
        let Some(echo) = block.echo else {
            return Said::new(&self.notify_next, Bytes::new()); // every request has one
        };
        let (topic, qos) = match &self.data {
            Some((known, topic, qos)) if known == echo => (Arc::clone(topic), *qos),
            _ => {
                let topic = streams::reply_topic(&self.thing, echo, "data");
                let qos = self.qos(&topic).unwrap_or(Qos::AtMostOnce);
                self.data = Some((Arc::clone(echo), Arc::clone(&topic), qos));
                (topic, qos)
            }
        };
        Said { qos: Some(qos), ..Said::new(&topic, streams::data(block.index, echo, data)) }
    }

    fn error(&mut self, trouble: &Trouble, echo: &Echo) -> Option<Said> {
        let (topic, payload) = streams::refused(&self.thing, trouble, echo.as_ref()?);
        Some(self.say(&topic, payload))
    }
}

/// Whether a filter matches a topic; both are below `$aws/`.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(other)) if level == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod understood;
