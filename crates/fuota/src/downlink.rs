//! What services write to one device (rule 24), and which words only the server may use there.

use std::sync::Arc;

use bytes::Bytes;
use hook::{Class, Client, Outgoing, Publish, PublishVerdict, Reason, ReasonKind, Role};

use crate::{engine::Engine, identity::is_staff, link::Link, plugin::DEVICES};

/// Where services write to a device: below [`DEVICES`], behind its id.
const DOWN_END: &str = "/down";

/// The device that `fuota/devices/ID/down` names.
pub fn downlink_device(topic: &str) -> Option<&str> {
    topic.strip_prefix(DEVICES)?.strip_suffix(DOWN_END)
}

impl Engine {
    /// A publish to one device's downlink.
    pub fn write_down(&self, client: &Client, id: &str, publish: &Publish<'_>) -> PublishVerdict {
        let role = client.identity.role;
        let open = role == Role::Anonymous && self.settings().open_downlink;
        if !(is_staff(role) || open) {
            return self
                .refuse(client, "only service and operator accounts may write to a device".into());
        }
        let newest = self.registry.get(id).and_then(|device| device.state.lock().newest_downlink());
        if let Some(problem) = self.forged(newest.as_ref().map(|(link, _)| &**link), publish) {
            return self.refuse(client, problem);
        }
        let not_delivered = |text: &'static str| {
            PublishVerdict::Reject(Reason::new(ReasonKind::ImplementationSpecific, text))
        };
        let Some((link, qos)) = newest else {
            return not_delivered(
                "the device is not connected, or has no downlink; nothing was delivered",
            );
        };
        let topic = link.state.lock().talk.as_ref().map(|talk| Arc::clone(talk.downlink()));
        let Some(topic) = topic else {
            return not_delivered(
                "the device has not said how it hears the server; nothing was delivered",
            );
        };
        let sent = link.outbox.send(Outgoing {
            topic,
            payload: Bytes::copy_from_slice(publish.payload).into(),
            qos: qos.min(publish.qos),
            class: Class::Control,
            properties: publish.properties.cloned().map(Box::new),
            receipt: None,
        });
        match sent {
            Ok(()) => PublishVerdict::Consume,
            Err(refused) => {
                PublishVerdict::Reject(Reason::new(ReasonKind::QuotaExceeded, refused.to_string()))
            }
        }
    }

    /// Why this must not be written to a device, if it holds what only the server says. What goes
    /// out on a connection that speaks one dialect, and has never acted in another, comes on a topic
    /// of that one, where the words of the others mean nothing: then only its own are looked at.
    /// In every other case all are.
    fn forged(&self, link: Option<&Link>, publish: &Publish<'_>) -> Option<String> {
        let own = link.and_then(Link::only_dialect);
        self.dialects.iter().find_map(|dialect| {
            let heard = own.is_none_or(|own| own.name() == dialect.name());
            if !heard && !dialect.is_reserved_everywhere() {
                return None;
            }
            let (word, dialect) = (dialect.forgery(publish.payload)?, dialect.name());
            Some(match own {
                Some(_) => format!(
                    "{word} is what only the server says ({dialect}): say it in other words"
                ),
                None => format!(
                    "{word} is what only the server says ({dialect}), and this device is away, or \
                     its connection speaks more than one dialect: say it in other words, or send it \
                     while the device is there and speaks another one"
                ),
            })
        })
    }
}
