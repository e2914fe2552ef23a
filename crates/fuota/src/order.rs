//! Updates that an operator starts with a message, as the reference's form does (rule 27).
//!
//! The message is answered at once and with what came of it: each answer goes to the connection
//! that the message came from, and to nobody else.

use std::{sync::Arc, time::Duration};

use hook::{
    Class, Client, Context, Origin, Outbox, Outgoing, Publish, PublishVerdict, Qos, Replacement,
    Role,
};
use tokio::time::Instant;

use crate::{
    Actor, NewDeployment, ServiceError, TargetView, Upload,
    db::Op,
    device::Device,
    dialect::{
        Dialect, Rest,
        order::{Order, Tone, Validation},
    },
    engine::Engine,
    fetch,
    files::Files,
    fleet::{
        Fleet,
        deployment::{Deployment, DeploymentState},
        rollout::{PlanName, PlanView},
        target::Target,
    },
    service::Service,
    state::UpdateState,
};

/// Orders that are carried out at once; more are told to try again.
pub const AT_ONCE: usize = 4;
/// How long an order waits for its manifest to go out, before it says why it does not.
const MANIFEST: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);

/// Why an order was not carried out.
enum Failure {
    /// It names no address.
    NoUrl,
    /// What is there could not be had.
    NoFile(String),
    Other(String),
}

/// Who is told what comes of an order.
struct Asker {
    outbox: Outbox,
    dialect: Arc<dyn Dialect>,
    qos: Qos,
    user: Option<Box<str>>,
    session: Option<Box<str>>,
}

impl Asker {
    fn say(&self, tone: Tone, text: &str, reason: Option<&str>) {
        let (user, session) = (self.user.as_deref(), self.session.as_deref());
        let answer = Validation { text, tone, reason, user, session };
        let Some(said) = self.dialect.validation(&answer) else { return };
        // One that is gone, or does not read, does without.
        let _ = self.outbox.send(Outgoing {
            topic: said.topic,
            payload: said.payload,
            qos: self.qos,
            class: Class::Control,
            properties: None,
            receipt: None,
        });
    }
}

impl Fleet {
    /// Orders are over whose device runs what they were for, or is given this instead: each makes
    /// a deployment, and nobody ends those of a form. Returns what is to be written.
    pub fn end_orders(&mut self, new: &Deployment, files: &mut Files) -> Vec<Op> {
        let is_order = |one: &Deployment| one.conditions.url.is_some();
        let mut ops = Vec::new();
        for one in self.deployments.values_mut().filter(|one| is_order(one)) {
            let Target::Device(device) = &one.target else { continue };
            if one.state.is_over() {
                continue;
            }
            let state = one.members.get(device.as_str()).and_then(|member| member.state.as_ref());
            let runs =
                matches!(state, Some(UpdateState::Updated | UpdateState::UpdatedUnconfirmed));
            let reason = match is_order(new) && new.target == one.target {
                true => "another order for the device followed it",
                false if runs => "its device runs it",
                false => continue,
            };
            one.end(DeploymentState::Ended, reason.into(), files.take_seq());
            ops.push(Op::Deployment(one.row()));
        }
        ops
    }
}

impl Engine {
    /// A publish that may be an order; `None` where it is none that this client may give.
    /// `device` is the one that the topic names.
    pub fn order(
        self: &Arc<Self>,
        context: &Context<'_>,
        dialect: &Arc<dyn Dialect>,
        publish: &Publish<'_>,
        device: Option<&str>,
    ) -> Option<PublishVerdict> {
        let client = context.client;
        let operates = matches!(client.identity.role, Role::Operator | Role::Admin);
        if !operates || publish.origin != Origin::Live {
            return None;
        }
        let mut order = dialect.order(publish.payload)?;
        let rest = std::mem::take(&mut order.rest);
        let quoted = |text: &str| Some(serde_json::Value::from(text).to_string().into());
        let name = client.identity.name.as_deref();
        let asker = Asker {
            outbox: context.outbox.clone(),
            dialect: Arc::clone(dialect),
            qos: publish.qos.min(Qos::AtLeastOnce),
            user: order.user.take().or_else(|| quoted(name?)),
            session: order.session.take().or_else(|| quoted(&client.id)),
        };
        self.carry_out(asker, client, order, device);
        Some(match rest {
            Rest::Part(payload) => PublishVerdict::Replace(Box::new(Replacement {
                topic: None,
                payload: Some(payload),
            })),
            _ => PublishVerdict::Consume,
        })
    }

    fn carry_out(
        self: &Arc<Self>,
        asker: Asker,
        client: &Client,
        order: Order,
        by_topic: Option<&str>,
    ) {
        let device = match (by_topic, order.device.as_deref()) {
            (Some(topic), Some(named)) if topic != named => {
                Err(format!("the topic names {topic}, and the message {named}"))
            }
            (Some(device), _) | (None, Some(device)) => Ok(device.to_owned()),
            (None, None) => {
                Err("no device is named: give \"device\", or publish to fuota/devices/ID/down"
                    .into())
            }
        };
        let (Ok(permit), Some(runtime)) =
            (Arc::clone(&self.orders).try_acquire_owned(), self.runtime())
        else {
            let text = "Internal Error. Too many files are being fetched already; try again.";
            return asker.say(Tone::Danger, text, None);
        };
        let actor = Actor {
            name: client.identity.name.as_deref().map(str::to_owned),
            origin: client.address.map(|address| address.to_string()),
        };
        let engine = Arc::clone(self);
        runtime.spawn(async move {
            let work = async {
                asker.say(Tone::Warning, "Calculating file size...", None);
                let started = match device {
                    Ok(device) => engine.start_update(&device, &order, &actor).await,
                    Err(why) => Err(Failure::Other(why)),
                };
                match started {
                    Ok((text, true)) => {
                        asker.say(Tone::Success, &format!("{text} Manifest Sent."), None);
                    }
                    Ok((text, false)) => asker.say(Tone::Warning, &text, None),
                    Err(Failure::NoUrl) => asker.say(Tone::Danger, "File URL not found.", None),
                    Err(Failure::NoFile(why)) => {
                        tracing::warn!(
                            by = actor.shown(),
                            reason = why,
                            "an operator's file was not fetched"
                        );
                        let text = "Error: Could not determine file size.";
                        asker.say(Tone::Danger, text, Some(&why));
                    }
                    Err(Failure::Other(why)) => {
                        asker.say(Tone::Danger, &format!("Internal Error. {why}"), None);
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = engine.stopping.cancelled() => {}
            }
            drop(permit);
        });
    }

    /// Gets the image and deploys it to the device. Gives the sentence for the operator, and
    /// whether the manifest went out.
    async fn start_update(
        self: &Arc<Self>,
        device: &str,
        order: &Order,
        actor: &Actor,
    ) -> Result<(String, bool), Failure> {
        let other = |error: ServiceError| Failure::Other(error.to_string());
        let Some(url) = order.url.as_deref() else { return Err(Failure::NoUrl) };
        let Some(known) = self.registry.get(device) else {
            return Err(Failure::Other(format!("There is no device {device}.")));
        };
        let service = Service(Arc::clone(self));
        let firmware = match self.own_upload(url) {
            Some(firmware) => firmware,
            None => self.fetched(&service, url, order.version.as_deref(), actor).await?,
        };
        let new = NewDeployment {
            firmware: firmware.clone(),
            target: TargetView { device: Some(device.into()), ..TargetView::default() },
            rollout: Some(PlanView::Named(PlanName::All)),
            // Who names the device means it, whatever it runs and had before.
            downgrade: true,
            windows: None,
            limits: crate::Limits::default(),
        };
        let view = service.firmware_one(&firmware);
        let size = view.as_ref().and_then(|view| view.size).unwrap_or(0);
        let digest = view.and_then(|view| view.digest).unwrap_or_default();
        let id = match self.again(&known, &digest) {
            // A button that is pressed twice.
            Some(running) => running,
            None => {
                let shown = Some(fetch::shown(url));
                let made = self.create_deployment_from(&new, None, actor, shown).await;
                made.map_err(other)?.0
            }
        };
        let until = Instant::now() + MANIFEST;
        loop {
            let (chunks, sent) = {
                let state = known.state.lock();
                let transfer = state.transfer.as_ref();
                let transfer = transfer.filter(|one| one.pin.deployment == Some(id));
                let digest = transfer.map(|transfer| transfer.pin.digest);
                let told = |digest| {
                    state.links.iter().any(|link| link.state.lock().announced.contains(&digest))
                };
                (transfer.map(|transfer| transfer.pin.total), digest.is_some_and(told))
            };
            let chunk_size = u64::from(self.settings().chunk_size);
            let chunks = chunks.map_or_else(|| size.div_ceil(chunk_size), u64::from);
            let ready = format!("Ready: {size} bytes ({chunks} chunks).");
            if sent {
                return Ok((ready, true));
            }
            let away = known.state.lock().links.is_empty();
            if away || Instant::now() >= until {
                let (why, _, _) = self.why(&known);
                return Ok((format!("{ready} The manifest follows: {why}."), false));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The deployment by which a device is being given these bytes already. Where it is not, its
    /// connections may hear the manifest of them again, as after a retry.
    fn again(&self, device: &Device, digest: &str) -> Option<i64> {
        let state = device.state.lock();
        if let Some(transfer) = &state.transfer
            && transfer.pin.sha256 == digest
            && transfer.state().is_under_way()
        {
            return transfer.pin.deployment;
        }
        for link in &state.links {
            link.state.lock().announced.retain(|announced| announced.to_string() != digest);
        }
        None
    }

    /// The id of what was uploaded here before, where the address is of that: its id, its path
    /// `uploads/NAME`, or an address that ends with `/api/v1/firmware/ID`.
    fn own_upload(&self, url: &str) -> Option<String> {
        let id = url.rsplit_once("/api/v1/firmware/").map_or(url, |(_, id)| id);
        let catalog = self.catalog.load();
        let mut views = catalog.views().iter();
        views.find(|view| view.id == id || view.path == url).map(|view| view.id.clone())
    }

    async fn fetched(
        &self,
        service: &Service,
        url: &str,
        version: Option<&str>,
        actor: &Actor,
    ) -> Result<String, Failure> {
        let settings = self.settings().clone();
        let fetching = fetch::fetch(url, &settings.fetch_allow, self.store.max_size());
        let (name, bytes) = fetching.await.map_err(|error| Failure::NoFile(error.to_string()))?;
        let taken = service.take_upload(bytes).await;
        let taken = taken.map_err(|error| Failure::NoFile(error.to_string()))?;
        let digest = taken.digest();
        let upload = |file_name: String, title: Option<String>| Upload {
            file_name,
            name: title,
            version: version.map(str::to_owned),
            model: None,
            notes: None,
            signature: None,
        };
        let again = taken.again();
        match service.add_firmware(upload(name.clone(), None), taken, None, actor).await {
            Ok((view, _)) => Ok(view.id),
            // The same name with other bytes, as a form sends it again and again; that title and
            // version are not the same is seen to all the same (rule 10).
            Err(ServiceError::Conflict(_)) => {
                let title = store::NameParts::parse(&name).title;
                let other = upload(format!("{}-{name}", digest.short()), title);
                let added = service.add_firmware(other, again, None, actor).await;
                added.map(|(view, _)| view.id).map_err(|error| Failure::Other(error.to_string()))
            }
            Err(error) => Err(Failure::Other(error.to_string())),
        }
    }
}
