//! What goes to a device: a block from the cache or from the disk, an error, any message of its
//! dialect; and what is done while its outbox has no room.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hook::{Class, Outgoing, Refused};
use tokio::time::Instant;

use crate::{
    dialect::{Block, BlockSize, Echo, Said, Trouble},
    engine::{Counters, Engine},
    link::{Lane, Link, LinkState, Wanted},
    timers::Event,
};

/// After what a full outbox is tried again where nothing of ours is in it.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// What became of a block that was due.
enum Sent {
    /// It is with the outbox, or nobody wants it any more.
    Away,
    /// The outbox has no room for it; what wakes us then is set.
    Full(Wanted),
    /// It is not in the cache.
    Missing(Wanted),
}

impl Engine {
    /// Sends a block, when what is due before it was sent: who asks for many, or fetches over HTTP,
    /// gets them in the order in which they were admitted.
    pub fn answer(
        self: &Arc<Self>,
        link: &Arc<Link>,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
    ) {
        if !state.window.due.is_empty() {
            return state.window.due.push_back(wanted);
        }
        match self.send_cached(link, state, lane, wanted) {
            Sent::Away => {}
            Sent::Full(wanted) => state.window.due.push_back(wanted),
            Sent::Missing(wanted) => {
                state.window.due.push_back(wanted);
                self.read_first(link, state, lane);
            }
        }
    }

    /// Goes on with what is due, after the outbox had no room for it.
    pub fn send_due(self: &Arc<Self>, link: &Arc<Link>, state: &mut LinkState) {
        if state.window.due.is_empty() || state.window.reading {
            return;
        }
        let Some(lane) = state.lane.clone() else { return };
        if self.is_first_missing(link, state, &lane) {
            self.read_first(link, state, &lane);
        }
    }

    /// Sends what is due as far as it is in the cache and the outbox has room. Whether the next one
    /// must be read.
    fn is_first_missing(
        self: &Arc<Self>,
        link: &Link,
        state: &mut LinkState,
        lane: &Arc<Lane>,
    ) -> bool {
        while let Some(wanted) = state.window.due.pop_front() {
            let (wanted, missing) = match self.send_cached(link, state, lane, wanted) {
                Sent::Away => continue,
                Sent::Full(wanted) => (wanted, false),
                Sent::Missing(wanted) => (wanted, true),
            };
            state.window.due.push_front(wanted);
            return missing;
        }
        false
    }

    fn send_cached(
        self: &Arc<Self>,
        link: &Link,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
    ) -> Sent {
        let range = lane.transfer.pin.range(wanted.index, wanted.size);
        let Some((offset, length)) = range else { return Sent::Away };
        match lane.transfer.image.cached(offset, length, &mut state.window.held) {
            Some(data) => self.send_block(link, state, lane, wanted, data),
            None => Sent::Missing(wanted),
        }
    }

    fn send_block(
        self: &Arc<Self>,
        link: &Link,
        state: &mut LinkState,
        lane: &Arc<Lane>,
        wanted: Wanted,
        data: Bytes,
    ) -> Sent {
        let length = data.len();
        let (size, tag) = (wanted.size, lane.transfer.pin.tag());
        let block = Block { index: wanted.index, size, echo: &wanted.echo, tag };
        let Some(said) = state.talk.as_mut().map(|talk| talk.block(block, data)) else {
            return Sent::Away;
        };
        let encoded = said.payload.len();
        let receipt: Arc<dyn hook::Receipt> = match size {
            BlockSize::Pinned => Arc::clone(lane) as _,
            _ => state.window.cut(lane, size),
        };
        let sent = self.say(link, state, said, Class::Block, Some((receipt, wanted.index)));
        match sent {
            Ok(()) => {
                tracing::debug!(device = %lane.device.id, index = wanted.index, bytes = length, encoded, "block");
                Counters::add(&self.counters.blocks, 1);
                Counters::add(&self.counters.block_bytes, length as u64);
                self.counters.block_time.observe(wanted.since.elapsed());
            }
            // It keeps its place in the window and goes when something was written.
            Err(Refused::Full) => {
                if !std::mem::replace(&mut state.window.retries, true) {
                    // What fills the outbox may not be ours, and then no receipt wakes us.
                    self.timers.at(Instant::now() + FULL_RETRY, Event::Announce(lane.link.clone()));
                }
                return Sent::Full(wanted);
            }
            Err(Refused::TooLarge) => {
                state.window.close_one();
                let text = "the block is larger than the client's Maximum Packet Size: ask for a smaller one, or with a shorter group";
                self.send_error(link, state, &Trouble::TooLarge(text.into()), &wanted.echo);
            }
            Err(Refused::Closed) => state.window.close_one(),
        }
        Sent::Away
    }

    /// Has the first block of what is due read, and those behind it that are not in the cache.
    fn read_first(self: &Arc<Self>, link: &Arc<Link>, state: &mut LinkState, lane: &Arc<Lane>) {
        if let Some(runtime) = self.runtime() {
            state.window.reading = true;
            runtime.spawn(Arc::clone(self).read_due(Arc::clone(link), Arc::clone(lane)));
        }
    }

    /// Ends when the next one needs no reading, or the connection is in another transfer.
    async fn read_due(self: Arc<Self>, link: Arc<Link>, lane: Arc<Lane>) {
        let here = |state: &LinkState| {
            !state.closed && state.lane.as_ref().is_some_and(|now| Arc::ptr_eq(now, &lane))
        };
        // One wait is enough for all that is missing: what could not be read then is an error.
        let mut waited = false;
        loop {
            let wanted = {
                let mut state = link.state.lock();
                if !here(&state) {
                    return;
                }
                // It keeps its place meanwhile.
                match state.window.due.front() {
                    Some(wanted) => wanted.clone(),
                    None => {
                        state.window.reading = false;
                        return;
                    }
                }
            };
            let range = lane.transfer.pin.range(wanted.index, wanted.size);
            let (offset, length) = range.unwrap_or_default();
            let began = Instant::now();
            let mut read = lane.transfer.image.read(offset, length).await;
            if let Err(error) = &read
                && error.retry
                && !std::mem::replace(&mut waited, true)
            {
                tracing::debug!(device = %lane.device.id, index = wanted.index, %error, "waiting for a copy");
                lane.transfer.image.renewed().await;
                read = lane.transfer.image.read(offset, length).await;
            }
            self.counters.read_time.observe(began.elapsed());
            let mut state = link.state.lock();
            if !here(&state) {
                return;
            }
            state.window.due.pop_front();
            match read {
                Ok(data) => {
                    if let Sent::Full(wanted) =
                        self.send_block(&link, &mut state, &lane, wanted, data)
                    {
                        state.window.due.push_front(wanted);
                        state.window.reading = false;
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(device = %lane.device.id, index = wanted.index, %error, "a block could not be read");
                    state.window.close_one();
                    let advice = if error.retry {
                        "try again"
                    } else {
                        "an operator must look at the server's log"
                    };
                    let text = format!("chunk {} cannot be read now: {advice}", wanted.index);
                    self.send_error(&link, &mut state, &Trouble::Unavailable(text), &wanted.echo);
                }
            }
            if !self.is_first_missing(&link, &mut state, &lane) {
                state.window.reading = false;
                return;
            }
        }
    }

    /// Tells the device why it gets no block.
    pub fn send_error(&self, link: &Link, state: &mut LinkState, trouble: &Trouble, echo: &Echo) {
        tracing::debug!(client = %link.client.id, error = %trouble, "refused a request");
        Counters::add(&self.counters.errors, 1);
        let said = state.talk.as_mut().and_then(|talk| talk.error(trouble, echo));
        if let Some(said) = said {
            // A client that provokes more errors than it reads loses some of them.
            let _ = self.say(link, state, said, Class::Control, None);
        }
    }

    /// Sends one message of the dialect.
    pub fn say(
        &self,
        link: &Link,
        state: &LinkState,
        said: Said,
        class: Class,
        receipt: Option<(Arc<dyn hook::Receipt>, u32)>,
    ) -> Result<(), Refused> {
        let Said { topic, payload, qos, properties } = said;
        let qos = qos.or(state.downlink).unwrap_or_default();
        link.outbox.send(Outgoing { topic, payload, qos, class, properties, receipt })
    }
}
