//! One device, without any I/O: events and the time go in, actions come out.
//!
//! | state | manifest | block | woken | connected |
//! | --- | --- | --- | --- | --- |
//! | waiting | start: ask for chunk 0 | ignored | – | wait |
//! | downloading | start anew | store, ask for the next; after the last verify | ask for what is due, again for what is late | ask again for what was under way |
//! | finished | ignored | ignored | – | – |
//!
//! A reboot in any state but finished goes back to waiting; a device that resumes goes on, also
//! after a manifest of the image that it is at. How the next request is chosen is the
//! pull's matter: [`crate::device::pull`].

mod pull;

use std::time::{Duration, Instant};

use bytes::Bytes;

use self::pull::{Pull, Reference, Windowed};
use crate::assembly::{Assembly, Stored, Verified, Wrong};
use crate::digest::Digest;
use crate::trust::TrustedKey;
use crate::wire::{Manifest, Message};

/// How a device behaves; the same for all devices of a run.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub pace: Duration,
    pub window: u16,
    pub retry_after: Duration,
    pub max_retries: u32,
    pub strict_reference: bool,
    pub resume: bool,
    pub expect_sha256: Option<Digest>,
    pub trusted_key: Option<TrustedKey>,
    pub max_image: u64,
    pub keep_image: bool,
}

/// What happens to a device.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The connection stands and the downlink is subscribed.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The power was gone: so is the buffer, unless it is in flash.
    Rebooted,
    /// The server said something on the downlink.
    Heard(Message),
    /// The time of [`Device::next_wake`] has come.
    Woken,
}

/// What a device wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask for this chunk.
    Request(u32),
    /// A manifest was accepted; a download of so many chunks begins.
    Started(u32),
    /// The image is complete and verified: the device is finished.
    Complete(Verified),
    /// The device gives up.
    Fail(Failure),
}

/// Why a device gives up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Wrong(#[from] Wrong),
    #[error(
        "the manifest announces {size} bytes, more than the {max} that the device has room for"
    )]
    TooLarge { size: u64, max: u64 },
    #[error("no answer to {attempts} requests for chunk {index}{}", .error.as_ref().map(|e| format!("; the server's last error: {e}")).unwrap_or_default())]
    NoAnswer { index: u32, attempts: u32, error: Option<String> },
}

impl Failure {
    /// The kind of failure in a few words, to count devices by.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Wrong(Wrong::Index { .. } | Wrong::Length { .. }) => "wrong block",
            Self::Wrong(Wrong::Missing(_)) => "missing chunk",
            Self::Wrong(Wrong::Size { .. }) => "wrong size",
            Self::Wrong(Wrong::ManifestDigest { .. } | Wrong::ExpectedDigest { .. }) => {
                "wrong digest"
            }
            Self::Wrong(Wrong::Unsigned | Wrong::Signature(_)) => "not trusted",
            Self::TooLarge { .. } => "image too large",
            Self::NoAnswer { .. } => "no answer",
        }
    }
}

/// What a device has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Manifests that started a download.
    pub manifests: u64,
    /// Blocks that arrived, repeated ones too.
    pub blocks: u64,
    /// Bytes of firmware in them.
    pub bytes: u64,
    /// Blocks that were there already.
    pub repeated: u64,
    /// Requests for a chunk that had been asked for before.
    pub retries: u64,
    /// `fuota_error` messages.
    pub errors: u64,
    /// Messages of the server that are not as they should be.
    pub malformed: u64,
}

/// A device.
pub(crate) struct Device {
    behaviour: Behaviour,
    connected: bool,
    state: State,
    counts: Counts,
    /// The server's last error, or what was malformed.
    complaint: Option<String>,
}

enum State {
    Waiting,
    Downloading { assembly: Box<Assembly>, pull: Box<dyn Pull> },
    Finished,
}

impl Device {
    /// A device that waits for its first connection.
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            connected: false,
            state: State::Waiting,
            counts: Counts::default(),
            complaint: None,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What the server last complained about, or sent that could not be read.
    pub(crate) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    /// Chunks stored and chunks in all, while a download runs.
    pub(crate) fn progress(&self) -> Option<(u32, u32)> {
        match &self.state {
            State::Downloading { assembly, .. } => {
                Some((assembly.stored(), assembly.manifest().total_chunks))
            }
            State::Waiting | State::Finished => None,
        }
    }

    /// How requests name the image, while a download runs and they do.
    pub(crate) fn image(&self) -> Option<[u8; 8]> {
        match &self.state {
            State::Downloading { assembly, .. } => assembly.manifest().image,
            State::Waiting | State::Finished => None,
        }
    }

    /// When [`Event::Woken`] is due next. Never while disconnected: nothing could be sent.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        match &self.state {
            State::Downloading { pull, .. } if self.connected => pull.next_wake(),
            _ => None,
        }
    }

    /// Takes an event and appends to `actions` what the device wants done about it.
    pub(crate) fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Connected => {
                self.connected = true;
                if let State::Downloading { pull, .. } = &mut self.state {
                    pull.reconnected(now);
                }
            }
            Event::Disconnected => self.connected = false,
            Event::Rebooted => {
                self.connected = false;
                let kept = self.resumes() || matches!(self.state, State::Finished);
                if !kept {
                    self.state = State::Waiting;
                }
            }
            Event::Heard(message) => self.hear(now, message, actions),
            Event::Woken => {}
        }
        self.ask(now, actions);
    }

    fn resumes(&self) -> bool {
        self.behaviour.resume && !self.behaviour.strict_reference
    }

    fn hear(&mut self, now: Instant, message: Message, actions: &mut Vec<Action>) {
        match message {
            Message::Manifest(manifest) => self.start(now, manifest, actions),
            Message::Block(index, data) => self.store(now, index, data, actions),
            Message::Error(text) => {
                self.counts.errors += 1;
                self.complaint = Some(text);
            }
            Message::Malformed(reason) => {
                self.counts.malformed += 1;
                self.complaint = Some(reason);
            }
        }
    }

    fn start(&mut self, now: Instant, manifest: Manifest, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Finished) {
            return;
        }
        // Where an image has a name, the same manifest again is no reason to begin anew.
        if manifest.image.is_some() && manifest.image == self.image() {
            return;
        }
        if let State::Downloading { assembly, .. } = &self.state
            && self.resumes()
            && *assembly.manifest() == manifest
        {
            return;
        }
        let Behaviour { max_image, keep_image, trusted_key, .. } = self.behaviour;
        if manifest.total_size > max_image {
            self.fail(Failure::TooLarge { size: manifest.total_size, max: max_image }, actions);
            return;
        }
        self.counts.manifests += 1;
        let chunks = manifest.total_chunks;
        let pull: Box<dyn Pull> = if self.behaviour.strict_reference {
            Box::new(Reference::new(now, chunks))
        } else {
            Box::new(Windowed::new(now, chunks, &self.behaviour))
        };
        actions.push(Action::Started(chunks));
        let assembly = Box::new(Assembly::new(manifest, keep_image, trusted_key));
        let complete = assembly.is_complete();
        self.state = State::Downloading { assembly, pull };
        if complete {
            self.finish(actions);
        }
    }

    fn store(&mut self, now: Instant, index: u32, data: Bytes, actions: &mut Vec<Action>) {
        let State::Downloading { assembly, pull } = &mut self.state else { return };
        self.counts.blocks += 1;
        self.counts.bytes += data.len() as u64;
        match assembly.store(index, data) {
            Ok(Stored::New) => {}
            Ok(Stored::Repeated) => self.counts.repeated += 1,
            Err(wrong) => return self.fail(wrong.into(), actions),
        }
        pull.received(index, now + self.behaviour.pace);
        // The reference device reassembles after the last index, whatever is missing.
        let last = index + 1 == assembly.manifest().total_chunks;
        if assembly.is_complete() || (self.behaviour.strict_reference && last) {
            self.finish(actions);
        }
    }

    fn finish(&mut self, actions: &mut Vec<Action>) {
        let State::Downloading { assembly, .. } =
            std::mem::replace(&mut self.state, State::Finished)
        else {
            return;
        };
        actions.push(match assembly.verify(self.behaviour.expect_sha256) {
            Ok(verified) => Action::Complete(verified),
            Err(wrong) => Action::Fail(wrong.into()),
        });
    }

    fn fail(&mut self, failure: Failure, actions: &mut Vec<Action>) {
        self.state = State::Finished;
        actions.push(Action::Fail(failure));
    }

    fn ask(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.connected {
            return;
        }
        let State::Downloading { pull, .. } = &mut self.state else { return };
        while let Some(next) = pull.next(now) {
            match next {
                pull::Next::First(index) => actions.push(Action::Request(index)),
                pull::Next::Again(index) => {
                    self.counts.retries += 1;
                    actions.push(Action::Request(index));
                }
                pull::Next::GiveUp { index, attempts } => {
                    let error = self.complaint.clone();
                    return self.fail(Failure::NoAnswer { index, attempts, error }, actions);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
