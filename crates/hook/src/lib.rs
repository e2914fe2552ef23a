//! The words that the broker and its plugins share, in both directions.
//!
//! A plugin implements [`Hook`]: the broker asks it at fixed phases of a session's life and
//! does what its verdict says. A plugin talks back through two doors: the [`Outbox`] of one
//! session (messages past the routing, for that session alone) and [`Broker`] (publish as the
//! broker, disconnect, list clients, read counters).
//!
//! | module | subject |
//! | --- | --- |
//! | [`address`] | which addresses count as one: [`network`] |
//! | [`client`] | who is connected: [`Client`], [`Identity`], [`Role`] |
//! | [`clock`] | the wall clock, and how far it can be trusted |
//! | [`histogram`] | how long things took: [`Histogram`] |
//! | [`message`] | what is published: [`Publish`], [`Qos`], [`Properties`] |
//! | [`verdict`] | what a hook decides: one enum per phase, and the [`Reason`] of a refusal |
//! | [`phase`] | the trait [`Hook`], phase by phase, and the [`Context`] that it is called with |
//! | [`seldom`] | lines of the log that clients can cause as often as they like: [`Seldom`] |
//! | [`slot`] | a hook's private state on one connection: [`Slot`] |
//! | [`outbox`] | a session's bounded queue past the router: [`Outbox`], [`Outgoing`] |
//! | [`broker`] | the way back: trait [`Broker`], [`ClientStatus`], [`Counters`] |
//!
//! There is no I/O here, and nothing of the router.

pub mod address;
pub mod broker;
pub mod client;
pub mod clock;
pub mod histogram;
pub mod message;
pub mod outbox;
pub mod phase;
pub mod seldom;
pub mod slot;
pub mod verdict;

pub use address::network;
pub use broker::{Broker, ClientQuery, ClientStatus, Counters, RetainedMessage, RetainedPage};
pub use client::{Client, ConnectRequest, Identity, Protocol, Role};
pub use histogram::{Distribution, Histogram};
pub use message::{Origin, Properties, Publish, Qos, Subscription};
pub use outbox::{Class, Encode, Outbox, Outgoing, Payload, Receipt, Refused, Sink};
pub use phase::{BoxFuture, Context, Hook, SessionEnd};
pub use seldom::Seldom;
pub use slot::Slot;
pub use verdict::{
    Access, ConnectVerdict, PublishVerdict, Reason, ReasonKind, Replacement, SubscribeVerdict,
};
