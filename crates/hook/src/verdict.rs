//! What a hook decides. Each verdict says what happens; none is a bool.

use bytes::Bytes;
use std::borrow::Cow;

use crate::client::Identity;

/// Why something was refused: for the log, for the counters and, where MQTT 5 has a place for
/// it, for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The class, which decides the reason code on the wire.
    pub kind: ReasonKind,
    /// One sentence for people, without secrets.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// A reason with its sentence.
    pub fn new(kind: ReasonKind, text: impl Into<Cow<'static, str>>) -> Self {
        Reason { kind, text: text.into() }
    }
}

/// Classes of refusal, named after the MQTT 5 reason codes that they become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonKind {
    /// 0x87.
    NotAuthorized,
    /// 0x86, in CONNACK only.
    BadUserNameOrPassword,
    /// 0x85, in CONNACK only.
    ClientIdentifierNotValid,
    /// 0x90.
    TopicNameInvalid,
    /// 0x99.
    PayloadFormatInvalid,
    /// 0x97.
    QuotaExceeded,
    /// 0x89.
    ServerBusy,
    /// 0x98.
    AdministrativeAction,
    /// 0x83.
    ImplementationSpecific,
}

/// The connect phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// No opinion: ask the next hook. When none has one, the client is anonymous.
    Continue,
    /// The client is who this says; no further hook is asked.
    Accept(Identity),
    /// CONNACK with the reason's code, then the connection is closed.
    Reject(Reason),
}

/// The authorize phase, before a publish is looked at or a subscription is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// No opinion: ask the next hook. When none has one, the action is allowed.
    Continue,
    /// Allowed; no further hook is asked.
    Allow,
    /// Refused and counted. A publish is still acknowledged, with the reason's code where the
    /// version has one; a subscription gets its failure code in the SUBACK.
    Reject(Reason),
}

/// The publish phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishVerdict {
    /// Not ours: ask the next hook, then route the message.
    Continue,
    /// Go on with other content, at the next hook and in the routing.
    Replace(Box<Replacement>),
    /// Taken. It is acknowledged as its QoS asks, and nobody else ever sees it: it is neither
    /// routed nor retained.
    Consume,
    /// Refused and counted. It is acknowledged (MQTT 5: with the reason's code), and it is
    /// neither routed nor retained.
    Reject(Reason),
}

/// What a publish becomes; what is `None` stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// Another topic: without wildcards, at most 65,535 bytes.
    pub topic: Option<String>,
    /// Another payload.
    pub payload: Option<Bytes>,
}

/// The subscribe phase, once per filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// Not ours: ask the next hook, then make the subscription.
    Continue,
    /// Granted, and kept by the session alone: no publish is ever routed to it and no retained
    /// message is sent. The hook itself writes to the session's outbox.
    Consume,
    /// Refused with the reason's code.
    Reject(Reason),
}
