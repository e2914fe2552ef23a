//! The trait [`Hook`], phase by phase.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    broker::Broker,
    client::{Client, ConnectRequest},
    message::{Publish, Subscription},
    outbox::Outbox,
    slot::Slot,
    verdict::{Access, ConnectVerdict, PublishVerdict, SubscribeVerdict},
};

/// A boxed future, as the one asynchronous phase returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a hook is called with after the connect phase: one connection, seen from this hook.
pub struct Context<'a> {
    /// The connection.
    pub client: &'a Arc<Client>,
    /// The way to its writer; clone it to answer later.
    pub outbox: &'a Outbox,
    /// This hook's own state on this connection.
    pub slot: &'a mut Slot,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client said DISCONNECT.
    ClientLeft,
    /// The socket closed or broke.
    ConnectionLost,
    /// Nothing was heard for one and a half times the keep alive.
    KeepAliveTimeout,
    /// The same client id connected again.
    TakenOver,
    /// The client broke the protocol.
    ProtocolError,
    /// A plugin, an operator or the broker's own limits ended it.
    Kicked,
    /// The broker stops.
    Shutdown,
}

/// The one way in for a plugin.
///
/// Every phase has a default that changes nothing, so that a plugin writes only what it is
/// about. Hooks are asked in the order in which the daemon lists them, and each phase says in
/// its verdict type when the next one is asked.
///
/// The phases of one connection, in order:
///
/// | phase | when | may wait |
/// | --- | --- | --- |
/// | [`connect`](Hook::connect) | a well-formed CONNECT arrived | yes |
/// | [`authorize_subscribe`](Hook::authorize_subscribe) | each subscription of a resumed session | no |
/// | [`session_start`](Hook::session_start) | the session is ours, the CONNACK is queued | no |
/// | [`subscribe`](Hook::subscribe) | each subscription of a resumed session | no |
/// | [`authorize_publish`](Hook::authorize_publish), [`authorize_subscribe`](Hook::authorize_subscribe) | before each | no |
/// | [`wants`](Hook::wants), then [`publish`](Hook::publish) | each allowed publish, live or will | no |
/// | [`subscribe`](Hook::subscribe), [`unsubscribe`](Hook::unsubscribe) | each filter | no |
/// | [`session_end`](Hook::session_end) | the connection is gone | no |
///
/// Apart from `connect`, phases run inside the connection's own read loop, so they must not
/// block: a keep alive or a PINGRESP waits behind them. What takes long is started as a task
/// that answers through the [`Outbox`]. Phases of one connection never run at the same time;
/// phases of different connections do.
pub trait Hook: Send + Sync + 'static {
    /// A short name for the log.
    fn name(&self) -> &'static str;

    /// Once, before any listener accepts: the way back to the broker.
    fn start(&self, broker: Arc<dyn Broker>) {
        let _ = broker;
    }

    /// Who is this? The only phase that may wait, and the only one that sees the password.
    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        let _ = request;
        Box::pin(std::future::ready(ConnectVerdict::Continue))
    }

    /// A connection begins. `subscriptions` are those of the session that it resumed (empty for
    /// a new one) and may still have; [`subscribe`](Hook::subscribe) follows for each of them.
    fn session_start(&self, context: Context<'_>, subscriptions: &[Subscription]) {
        let _ = (context, subscriptions);
    }

    /// May this client publish to this topic?
    fn authorize_publish(&self, client: &Client, topic: &str) -> Access {
        let _ = (client, topic);
        Access::Continue
    }

    /// May this client subscribe to this filter?
    fn authorize_subscribe(&self, client: &Client, filter: &str) -> Access {
        let _ = (client, filter);
        Access::Continue
    }

    /// Does [`publish`](Hook::publish) care about this topic? Asked for every publish, so it
    /// must be a few comparisons; it keeps ordinary traffic off the hook's path.
    fn wants(&self, topic: &str) -> bool {
        let _ = topic;
        false
    }

    /// A publish on a wanted topic, before it is retained or routed.
    fn publish(&self, context: Context<'_>, publish: &Publish<'_>) -> PublishVerdict {
        let _ = (context, publish);
        PublishVerdict::Continue
    }

    /// A filter that the client subscribes to, or that its resumed session brings along: what
    /// was decided on an earlier connection is decided anew.
    fn subscribe(&self, context: Context<'_>, subscription: &Subscription) -> SubscribeVerdict {
        let _ = (context, subscription);
        SubscribeVerdict::Continue
    }

    /// A filter that the client no longer subscribes to (only filters that it had).
    fn unsubscribe(&self, context: Context<'_>, filter: &str) {
        let _ = (context, filter);
    }

    /// The connection is gone; the slot is dropped after this. The session may live on.
    fn session_end(&self, context: Context<'_>, end: SessionEnd) {
        let _ = (context, end);
    }
}
