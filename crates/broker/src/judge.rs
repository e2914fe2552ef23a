//! The subscriptions that a session brings along, judged by what holds now.
//!
//! Rules may have changed since they were made, and so may the account's role. Each is asked
//! about again as if the client had just sent it; one that is refused is gone, with what waits
//! for it alone. The client is not told: no packet says so.
//!
//! Where rules change under a connection, it ends, so that its client does hear of it: what it
//! asks for when it is back is judged by the new ones.

use hook::{Reason, SessionEnd, SubscribeVerdict};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    connection::Connection,
    exchange::Exchange,
    inbound::reason_code,
    inbox::Kick,
    journal::Record,
    message::Delivery,
    outbound::{Ended, Resend},
    session::Session,
    topic::{check_filter, matches},
};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Tells the hooks that the connection begins, and asks them about each subscription that
    /// the session has.
    pub(crate) fn start_hooks(&mut self) {
        let mut fewer = false;
        let mut held = self.session.subscriptions();
        held.retain(|one| {
            let asked = self.exchange.hooks.authorize_subscribe(&self.client, &one.filter);
            fewer |= asked.is_err();
            asked.map_err(|why| self.give_up(&one.filter, &why)).is_ok()
        });
        let (exchange, mut view) = self.view();
        exchange.hooks.session_start(&mut view, &held);
        for one in &held {
            let (exchange, mut view) = self.view();
            fewer |= match exchange.hooks.subscribe(&mut view, one) {
                SubscribeVerdict::Continue => self.route_again(&one.filter, false),
                SubscribeVerdict::Consume => self.route_again(&one.filter, true),
                SubscribeVerdict::Reject(why) => {
                    exchange.hooks.unsubscribe(&mut view, &one.filter);
                    self.give_up(&one.filter, &why);
                    true
                }
            };
        }
        if fewer {
            self.drop_what_nothing_matches();
        }
    }

    fn give_up(&mut self, filter: &str, why: &Reason) {
        let client = &*self.client.id;
        tracing::info!(client, ?filter, reason = %why.text, "a resumed subscription is refused");
        self.tally.refused += 1;
        let held = self.session.subscriptions.lock().remove(filter);
        if held.is_some_and(|held| !held.consumed)
            && let Ok(parsed) = check_filter(filter)
        {
            self.exchange.index.remove(parsed, self.session.key);
        }
        self.forget_owed(filter);
        self.log(|session| Record::Unsubscribe { session, filter: filter.into() });
    }

    /// Whether a hook consumes a subscription may have changed; `true` where it does now, and
    /// messages were routed to it before.
    fn route_again(&mut self, filter: &str, consumed: bool) -> bool {
        let mut subscriptions = self.session.subscriptions.lock();
        let found = subscriptions.get_mut(filter);
        let (Some((text, held)), Ok(parsed)) = (found, check_filter(filter)) else { return false };
        if held.consumed == consumed {
            return false;
        }
        held.consumed = consumed;
        if consumed {
            self.exchange.index.remove(parsed, self.session.key);
        } else {
            self.exchange.index.insert(parsed, text, held.entry(&self.session));
        }
        let held = held.clone();
        drop(subscriptions);
        if consumed {
            self.forget_owed(filter);
        }
        self.log(|session| Record::Subscribe { session, filter: filter.into(), held });
        consumed
    }

    /// Messages that waited for what was refused alone, those among them that an earlier connection
    /// sent and its client has not acknowledged. Of the QoS 2 ones that it has, the exchange goes on.
    fn drop_what_nothing_matches(&mut self) {
        let subscriptions = self.session.subscriptions.lock();
        let routed = subscriptions.iter().filter(|(_, held)| !held.consumed);
        let filters: Vec<_> = routed.filter_map(|(filter, _)| check_filter(filter).ok()).collect();
        let stays = |delivery: &Delivery| {
            filters.iter().any(|filter| matches(filter.levels, &delivery.message.topic))
        };
        let dropped = self.session.inbox.drop_waiting(stays);
        let mut unsent = Vec::from_iter(dropped.iter().map(|delivery| delivery.id));
        self.resend.retain(|id| match self.state.window.resend(*id) {
            Some(Resend::Publish(delivery)) if !stays(&delivery) => {
                unsent.extend(self.state.window.forget(*id).map(|Ended(number)| number));
                false
            }
            _ => true,
        });
        drop(filters);
        drop(subscriptions);
        for number in unsent {
            self.tally.dropped += 1;
            self.delivery_over(number);
        }
    }
}

impl Exchange {
    /// Ends the connections that hold a subscription which hooks would refuse now, and says how
    /// many there were.
    pub(crate) fn judge_again(&self) -> usize {
        let refused = |session: &Session| {
            let client = session.view.lock().client.clone()?;
            let held = session.subscriptions();
            held.iter().find_map(|one| {
                let why = self.hooks.authorize_subscribe(&client, &one.filter).err()?;
                tracing::info!(client = &*client.id, filter = ?one.filter, reason = %why.text,
                    "disconnected: a subscription is refused by the rules now");
                Some(why)
            })
        };
        let sessions = self.registry.all();
        let connected = sessions.iter().filter(|session| session.inbox.is_connected());
        let kicked = connected.filter(|session| {
            refused(session).is_some_and(|why| {
                session.inbox.kick(Kick {
                    end: SessionEnd::Kicked,
                    reason: reason_code(why.kind),
                    text: "a subscription is not allowed any more".into(),
                })
            })
        });
        kicked.count()
    }
}
