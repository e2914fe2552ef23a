//! Joins a device to its connection, and does to it what the dice say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::assembly::Verified;
use crate::device::{Action, Behaviour, Device, Event};
use crate::faults::{Dice, Fate, Mishap};
use crate::link::{Link, LinkError, Login};
use crate::progress::Meter;
use crate::summary::DeviceReport;
use crate::wire::Message;
use crate::words::Words;

/// The pause before a connection is tried again, doubled at each failure up to the second one.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a device needs to be run.
pub(crate) struct Setup {
    pub name: String,
    pub login: Login,
    pub behaviour: Behaviour,
    pub dice: Dice,
    /// Where the image is written to.
    pub image_file: Option<PathBuf>,
    pub report: bool,
    pub linger: Duration,
    /// Limits how many devices are connecting at once.
    pub connecting: Arc<Semaphore>,
    pub meter: Arc<Meter>,
}

/// A device that is being run.
pub(crate) struct Client {
    setup: Setup,
    device: Device,
    actions: Vec<Action>,
    connections: u64,
    reboots: u64,
    lost: u64,
    started: Option<Instant>,
    verified: Option<(Verified, Duration)>,
    /// Why the last attempt to connect failed, while there is no connection.
    trouble: Option<String>,
}

/// Why a device ended without an image, or with one that could not be kept.
pub(crate) struct Ending {
    kind: &'static str,
    reason: String,
}

/// Why a connection is over, where the device is not.
enum Over {
    /// By a fault of the dice.
    Mishap(Mishap),
    Lost(LinkError),
    Finished(Option<Ending>),
}

impl From<LinkError> for Over {
    fn from(error: LinkError) -> Self {
        Self::Lost(error)
    }
}

impl Client {
    pub(crate) fn new(setup: Setup) -> Self {
        let device = Device::new(setup.behaviour.clone());
        Self {
            setup,
            device,
            actions: Vec::new(),
            connections: 0,
            reboots: 0,
            lost: 0,
            started: None,
            verified: None,
            trouble: None,
        }
    }

    /// Runs the device until it is finished; `Some` says what went wrong.
    ///
    /// May be cancelled at any time; [`Client::into_report`] then tells how far it came.
    pub(crate) async fn run(&mut self) -> Option<Ending> {
        let mut backoff = BACKOFF.0;
        loop {
            let link = match self.connect().await {
                Ok(link) => link,
                Err(error) if error.is_worth_a_retry() => {
                    tracing::debug!(device = %self.setup.name, %error, "connecting failed");
                    self.trouble = Some(error.to_string());
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                    continue;
                }
                Err(error) => {
                    return Some(Ending { kind: "not connected", reason: error.to_string() });
                }
            };
            backoff = BACKOFF.0;
            self.trouble = None;
            let event = match self.converse(link).await {
                Over::Finished(ending) => return ending,
                Over::Mishap(Mishap::Reboot) => {
                    self.reboots += 1;
                    self.setup.meter.rebooted();
                    tokio::time::sleep(self.setup.dice.down()).await;
                    Event::Rebooted
                }
                Over::Mishap(Mishap::Reconnect) => Event::Disconnected,
                Over::Lost(error) if error.is_worth_a_retry() => {
                    tracing::debug!(device = %self.setup.name, %error, "connection lost");
                    self.trouble = Some(error.to_string());
                    Event::Disconnected
                }
                Over::Lost(error) => {
                    return Some(Ending { kind: "broken conversation", reason: error.to_string() });
                }
            };
            let rebooted = matches!(event, Event::Rebooted);
            self.device.step(Instant::now(), event, &mut self.actions);
            // One that kept what it had begins no download that would bring the next reboot.
            if let Some((stored, chunks)) = self.device.progress().filter(|_| rebooted) {
                self.setup.dice.started(chunks - stored);
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, LinkError> {
        let _turn = self.setup.connecting.acquire().await;
        let link = Link::open(&self.setup.login).await?;
        self.connections += 1;
        Ok(link)
    }

    /// One connection, from its first to its last byte.
    async fn converse(&mut self, mut link: Link) -> Over {
        let over = match self.exchange(&mut link).await {
            Err(over) => over,
            Ok(never) => match never {},
        };
        // After a mishap the connection is just gone, as after a power failure.
        if let Over::Finished(_) = over {
            link.close().await;
        }
        over
    }

    async fn exchange(&mut self, link: &mut Link) -> Result<std::convert::Infallible, Over> {
        let login = &self.setup.login;
        // What it is in the middle of it goes on with, and need not ask what there is.
        let in_the_middle = self.device.image().is_some();
        let greeting = self.words().greeting(login.protocol, login.model.as_deref());
        if let Some(greeting) = greeting.filter(|_| !in_the_middle) {
            link.publish(&greeting);
        }
        self.step(Event::Connected, link).await?;
        link.flush().await?;
        loop {
            while let Some(payload) = link.buffered()? {
                for message in self.words().decode(&payload, self.device.image()) {
                    self.hear(message, link).await?;
                }
            }
            link.flush().await?;
            let wake = self.device.next_wake();
            tokio::select! {
                read = link.fill() => read?,
                () = sleep_until(wake) => self.step(Event::Woken, link).await?,
            }
        }
    }

    /// The server said something; whether the device hears it is for the dice.
    ///
    /// Faults hit blocks and requests only: a lost manifest is the server's to notice, and the
    /// reference device could never recover from it.
    async fn hear(&mut self, message: Message, link: &mut Link) -> Result<(), Over> {
        if !matches!(message, Message::Block(..)) {
            return self.step(Event::Heard(message), link).await;
        }
        match self.setup.dice.fate() {
            Fate::Lost => {
                self.lost += 1;
                return Ok(());
            }
            Fate::Arrives => {}
            Fate::Twice => self.step(Event::Heard(message.clone()), link).await?,
        }
        self.step(Event::Heard(message), link).await?;
        match self.setup.dice.after_block() {
            Some(mishap) => Err(Over::Mishap(mishap)),
            None => Ok(()),
        }
    }

    async fn step(&mut self, event: Event, link: &mut Link) -> Result<(), Over> {
        let now = Instant::now();
        let mut actions = std::mem::take(&mut self.actions);
        self.device.step(now, event, &mut actions);
        let mut requests = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Request(index) => requests.push(index),
                Action::Started(chunks) => {
                    self.started.get_or_insert(now);
                    self.setup.dice.started(chunks);
                    self.setup.meter.started(chunks);
                }
                Action::Complete(verified) => {
                    let ending = self.complete(verified, now, link).await?;
                    return Err(Over::Finished(ending));
                }
                Action::Fail(failure) => {
                    let ending = Ending { kind: failure.kind(), reason: failure.to_string() };
                    return Err(Over::Finished(Some(ending)));
                }
            }
        }
        self.actions = actions;
        self.request(&requests, link);
        if let Some((stored, _)) = self.device.progress() {
            self.setup.meter.stored(stored);
        }
        self.setup.meter.received(self.device.counts().blocks);
        Ok(())
    }

    fn request(&mut self, indices: &[u32], link: &mut Link) {
        let mut sent = Vec::with_capacity(indices.len());
        for index in indices {
            match self.setup.dice.fate() {
                Fate::Lost => self.lost += 1,
                Fate::Arrives => sent.push(*index),
                Fate::Twice => sent.extend([*index; 2]),
            }
        }
        for message in self.words().requests(&sent, self.device.image()) {
            link.publish(&message);
        }
    }

    fn words(&self) -> Words {
        self.setup.login.words
    }

    async fn complete(
        &mut self,
        mut verified: Verified,
        now: Instant,
        link: &mut Link,
    ) -> Result<Option<Ending>, LinkError> {
        self.setup.meter.completed();
        let image = verified.image.take();
        if self.setup.report {
            let model = self.setup.login.model.as_deref();
            link.publish(&self.words().updated(&verified.manifest.version, model));
        }
        let elapsed = self.started.map_or(Duration::ZERO, |started| now - started);
        self.verified = Some((verified, elapsed));
        if let (Some(path), Some(image)) = (&self.setup.image_file, image)
            && let Err(error) = tokio::fs::write(path, image).await
        {
            let reason = format!("cannot write {}: {error}", path.display());
            return Ok(Some(Ending { kind: "image not written", reason }));
        }
        link.flush().await?;
        self.linger(link).await;
        Ok(None)
    }

    /// Stays connected for a while, deaf but alive. Losing the connection here harms nothing.
    async fn linger(&self, link: &mut Link) {
        let stay = async { while link.fill().await.is_ok() && drained(link) {} };
        let _: Result<_, _> = tokio::time::timeout(self.setup.linger, stay).await;
    }

    /// How the device fared; `ending` is what [`Client::run`] or [`Client::cut_short`] said.
    pub(crate) fn into_report(self, ending: Option<Ending>) -> DeviceReport {
        let counts = self.device.counts();
        let mut report = DeviceReport {
            name: self.setup.name,
            manifests: counts.manifests,
            blocks: counts.blocks,
            bytes: counts.bytes,
            retries: counts.retries,
            repeated: counts.repeated,
            reconnects: self.connections.saturating_sub(1),
            reboots: self.reboots,
            lost: self.lost,
            errors: counts.errors,
            malformed: counts.malformed,
            ..DeviceReport::default()
        };
        if let Some((verified, elapsed)) = self.verified {
            report.sha256 = Some(verified.digest);
            report.size = Some(verified.manifest.total_size);
            report.version = Some(verified.manifest.version);
            report.seconds = Some(elapsed.as_secs_f64());
        }
        if let Some(ending) = ending {
            report.reason = Some(ending.reason);
            report.kind = Some(ending.kind.to_owned());
        }
        report
    }

    /// The ending of a device whose run was cut short (`kind`), with how far it was; `None` if it
    /// had its image already and only lingered.
    pub(crate) fn cut_short(&self, kind: &'static str) -> Option<Ending> {
        if self.verified.is_some() {
            return None;
        }
        let mut reason = match (&self.trouble, self.device.progress()) {
            (Some(trouble), _) => format!("{kind} without a connection: {trouble}"),
            (None, Some((stored, chunks))) => format!("{kind} with {stored} of {chunks} chunks"),
            (None, None) if self.connections == 0 => format!("{kind} before it was connected"),
            (None, None) => format!("{kind} without a manifest"),
        };
        if let Some(complaint) = self.device.complaint() {
            reason.push_str("; the server's last error: ");
            reason.push_str(complaint);
        }
        Some(Ending { kind, reason })
    }
}

/// Throws away what has been read; whether the conversation is still sound.
fn drained(link: &mut Link) -> bool {
    loop {
        match link.buffered() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
