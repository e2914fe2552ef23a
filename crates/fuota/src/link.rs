//! One connection of a device. What it asked for, and the limits of that, are its [`window`].

pub mod window;

pub use window::{Admission, LazyWindow};

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use hook::{Client, Outbox, Qos, Receipt};
use parking_lot::Mutex;
use store::Digest;
use tokio::time::Instant;

use crate::{
    device::Device,
    dialect::{BlockSize, Dialect, Echo, ImageTag, Question, Talk},
    engine::Engine,
    pin::{Layout, Pin},
    transfer::Transfer,
};

/// Requests that may wait while an offer is written to the database.
const MAX_PENDING: usize = crate::dialect::MAX_REQUESTS;

/// See [the module](self).
pub struct Link {
    pub client: Arc<Client>,
    pub outbox: Outbox,
    /// The dialect that the client first acted in.
    dialect: OnceLock<Arc<dyn Dialect>>,
    /// Whether it acted in another one later.
    mixes: AtomicBool,
    /// What the device is known as; `None` for a session without identity.
    pub name: Option<Arc<str>>,
    /// When it began.
    pub since: Instant,
    pub state: Mutex<LinkState>,
}

/// Taken by the connection's own task for each request, and by the engine for offers. The
/// device's lock is never taken while this one is held.
pub struct LinkState {
    /// Set when the client first acts as a device.
    pub device: Option<Arc<Device>>,
    /// What was said so far in the dialect.
    pub talk: Option<Box<dyn Talk>>,
    /// The granted quality of service of its downlink subscription; `None` while the device does
    /// not hear of new images.
    pub downlink: Option<Qos>,
    /// What it is served from.
    pub lane: Option<Arc<Lane>>,
    pub window: LazyWindow,
    /// Images whose manifest went out on this connection (rule 16).
    pub announced: Vec<Digest>,
    /// What the device takes a block for whose image it did not name: what it heard of last on
    /// this connection, or went on with. `None` before either.
    pub at: Option<Layout>,
    /// The block that it asks for next if it begins with that; `None` once it did anything else.
    begins: Option<u32>,
    /// See [`LinkState::begins_unheard`].
    began_unheard: bool,
    /// What was asked while the offer that answers it is written to the database.
    pub pending: Vec<Pending>,
    /// Whether an offer is being written because of this connection.
    pub waiting: bool,
    /// When the last manifest went out.
    pub spoken: Instant,
    /// Whether a request came on this connection.
    pub asked: bool,
    /// Whether it asked what there is for it.
    pub questioned: bool,
    /// Whether a timer is set for the time until which it may do so.
    pub wait_set: bool,
    /// Whether a timer for `resume_grace`, or for a nudge, is set.
    pub grace_set: bool,
    pub nudge_set: bool,
    /// The connection has ended.
    pub closed: bool,
}

/// A block that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub index: u32,
    /// Further blocks of the same request.
    pub more: Vec<Range<u32>>,
    pub size: BlockSize,
    /// The image that it must come from.
    pub image: Option<ImageTag>,
    /// What lies past the end is left out.
    pub trims: bool,
    pub echo: Echo,
    /// When it was asked for, or its turn in a request for many came.
    pub since: Instant,
}

/// What waits for an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    Blocks(Wanted),
    Question(Question),
}

impl Pending {
    /// Whether it asks for blocks, of whatever image there is.
    pub fn is_for_any_image(&self) -> bool {
        matches!(self, Pending::Blocks(Wanted { image: None, .. }))
    }
}

impl Wanted {
    /// Whether both ask for the same, whenever they came.
    pub fn asks_the_same(&self, other: &Wanted) -> bool {
        *self == Wanted { since: self.since, ..other.clone() }
    }

    /// Without what a run of blocks has past the end of an image of `total`; a run that begins
    /// there stays, for its error. One that trims has only what is within, if anything is.
    pub fn within(mut self, total: u32) -> Wanted {
        if self.trims {
            self.more.retain(|range| range.start < total);
            if self.index >= total
                && let Some(first) = self.more.first_mut()
            {
                self.index = first.start;
                first.start += 1;
            }
        }
        for range in &mut self.more {
            let counted = range.start == self.index.saturating_add(1) && self.index < total;
            if range.start < total || counted {
                range.end = range.end.min(total);
            }
        }
        self.more.retain(|range| range.start < range.end);
        self
    }
}

impl Link {
    pub fn new(client: Arc<Client>, outbox: Outbox, name: Option<Arc<str>>) -> Link {
        Link {
            client,
            outbox,
            dialect: OnceLock::new(),
            mixes: AtomicBool::new(false),
            name,
            since: Instant::now(),
            state: Mutex::new(LinkState {
                device: None,
                talk: None,
                downlink: None,
                lane: None,
                window: LazyWindow::default(),
                announced: Vec::new(),
                at: None,
                begins: None,
                began_unheard: false,
                pending: Vec::new(),
                waiting: false,
                spoken: Instant::now(),
                asked: false,
                questioned: false,
                wait_set: false,
                grace_set: false,
                nudge_set: false,
                closed: false,
            }),
        }
    }

    /// The dialect that the client speaks; `None` while it has not acted as a device.
    pub fn dialect(&self) -> Option<&Arc<dyn Dialect>> {
        self.dialect.get()
    }

    /// The same where the client has acted in no other one.
    pub fn only_dialect(&self) -> Option<&Arc<dyn Dialect>> {
        self.dialect.get().filter(|_| !self.mixes.load(Ordering::Relaxed))
    }

    /// Whether the client speaks this dialect; the first that is asked about is its own.
    pub fn speaks(&self, dialect: &Arc<dyn Dialect>) -> bool {
        let mut begins = false;
        let own = self.dialect.get_or_init(|| {
            self.state.lock().talk = Some(dialect.begin(self.name.as_ref()));
            begins = true;
            Arc::clone(dialect)
        });
        // Who was known before is a device already; which dialect it speaks shows now.
        if begins {
            let device = self.state.lock().device.clone();
            if let Some(device) = device {
                device.speaks(own.name());
            }
        }
        let speaks = own.name() == dialect.name();
        if !speaks {
            self.mixes.store(true, Ordering::Relaxed);
        }
        speaks
    }
}

impl LinkState {
    /// Serves from this transfer from now on; answers that are still being read for another
    /// image are discarded.
    pub fn switch(&mut self, lane: Arc<Lane>) {
        let same = self.lane.as_ref().is_some_and(|old| Arc::ptr_eq(&old.transfer, &lane.transfer));
        if !same {
            self.window = LazyWindow::default();
            self.lane = Some(lane);
        }
    }

    /// When something was asked for from this transfer, or its manifest sent, the last time; `None`
    /// where the connection is not served from it.
    pub fn last_sign(&self, transfer: &Transfer) -> Option<Instant> {
        let own = self.lane.as_ref().filter(|lane| std::ptr::eq(&*lane.transfer, transfer));
        own.map(|_| self.window.last_request.map_or(self.spoken, |last| last.max(self.spoken)))
    }

    /// Whether requests are answered from this at once: the device asked for some of it on this
    /// connection, and nothing has changed since.
    pub fn is_served_from(&self, transfer: &Transfer) -> bool {
        !self.waiting
            && self.window.last_request.is_some()
            && !transfer.overwritten.load(Ordering::Relaxed)
            && !transfer.stalled.load(Ordering::Relaxed)
    }

    /// Serves nothing of this transfer any more. Returns what was asked for and is not answered, as
    /// [`Window::abandon`] does.
    #[must_use]
    pub fn leave(&mut self, transfer: &Arc<Transfer>) -> Option<Wanted> {
        self.lane.take_if(|lane| Arc::ptr_eq(&lane.transfer, transfer))?;
        // A window that was never used stays without memory.
        self.window.last_request.and_then(|_| self.window.abandon())
    }

    /// The device hears of this image on this connection.
    pub fn heard_of(&mut self, pin: &Pin) {
        if !self.announced.contains(&pin.digest) {
            self.announced.push(pin.digest);
        }
        self.at = Some(pin.layout());
        self.begins = Some(0);
    }

    /// Whether this request shows that the device has heard of the image that it is at: it asks
    /// for the first block and then for the second. For any other, or for the first one again and
    /// again, a device asks as well that is still at the image before and gets nothing.
    pub fn begins_with(&mut self, wanted: &Wanted) -> bool {
        let single = wanted.more.is_empty().then_some(wanted.index);
        let (next, shows) = match (self.begins, single) {
            (Some(_), Some(0)) => (Some(1), false),
            (Some(1), Some(1)) => (None, true),
            _ => (None, false),
        };
        self.begins = next;
        shows
    }

    /// Whether the device asks for the first block alone, and this is the first that is heard of
    /// it on this connection: it holds nothing of an image before, or it lost its manifest.
    pub fn begins_unheard(&mut self, wanted: &Wanted) -> bool {
        let alone = wanted.index == 0 && wanted.more.is_empty();
        alone && self.at.is_none() && !std::mem::replace(&mut self.began_unheard, true)
    }

    /// Whether a device that names no image takes blocks of this transfer for what they are
    /// (rule 15). One that goes on with an earlier image would put them among that one's.
    pub fn takes(&self, transfer: &Transfer) -> bool {
        match self.at {
            Some(at) => at == transfer.pin.layout(),
            None => !transfer.replaces.load(Ordering::Relaxed),
        }
    }

    /// Keeps what was asked until its offer stands; past the bound it is dropped.
    pub fn keep(&mut self, pending: Pending) {
        if self.pending.len() < MAX_PENDING {
            self.pending.push(pending);
        }
    }
}

/// One connection's way to one transfer; also the receipt of its blocks, so that a late
/// receipt never marks a block of another transfer.
pub struct Lane {
    pub transfer: Arc<Transfer>,
    pub device: Arc<Device>,
    pub link: Weak<Link>,
    pub engine: Weak<Engine>,
}

/// The receipt of blocks of another size than the lane's transfer has.
pub struct Cut {
    pub lane: Arc<Lane>,
    pub size: BlockSize,
}

/// The tag of a manifest's receipt; no block has this index.
pub const MANIFEST: u32 = u32::MAX;

impl Receipt for Lane {
    fn written(&self, tag: u32) {
        if let (Some(engine), Some(link)) = (self.engine.upgrade(), self.link.upgrade()) {
            engine.written(&link, self, BlockSize::Pinned, tag);
        }
    }

    fn dropped(&self, _tag: u32) {
        // The connection has ended: its window goes with it.
    }
}

impl Receipt for Cut {
    fn written(&self, tag: u32) {
        let lane = &self.lane;
        if let (Some(engine), Some(link)) = (lane.engine.upgrade(), lane.link.upgrade()) {
            engine.written(&link, lane, self.size, tag);
        }
    }

    fn dropped(&self, _tag: u32) {}
}
