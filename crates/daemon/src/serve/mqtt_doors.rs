//! The listeners of `mqtt.*`.

use std::sync::Arc;

use anyhow::anyhow;
use broker::{Door, Listeners, Tls};

use crate::config::Mqtt;

/// Binds all addresses, or none. `tls` is there where a listener needs it.
///
/// # Errors
/// The first address that cannot be bound, with its key and the reason.
pub fn bind(mqtt: &Mqtt, tls: Option<&Arc<Tls>>) -> anyhow::Result<Listeners> {
    let mut doors = vec![
        ("mqtt.listen", &mqtt.listen, Door::Plain),
        ("mqtt.ws.listen", &mqtt.ws_listen, Door::WebSocket { path: mqtt.ws_path.as_str().into() }),
    ];
    if let Some(tls) = tls {
        let secure =
            Door::SecureWebSocket { path: mqtt.wss_path.as_str().into(), tls: tls.clone() };
        doors.insert(1, ("mqtt.tls.listen", &mqtt.tls_listen, Door::Tls(tls.clone())));
        doors.push(("mqtt.wss.listen", &mqtt.wss_listen, secure));
    }
    doors.iter().try_fold(Listeners::default(), |all, (key, addresses, door)| {
        all.and(addresses, door).map_err(|error| anyhow!("{key}: {error}"))
    })
}

/// A line for each address, as start-up prints it.
pub fn lines(listeners: &Listeners) -> Vec<String> {
    let line = |(address, door)| match door {
        &Door::Plain => format!("mqtt listening on {address}"),
        Door::Tls(_) => format!("mqtt over TLS listening on {address}"),
        Door::WebSocket { path } => {
            format!("mqtt over WebSocket listening on ws://{address}{path}")
        }
        Door::SecureWebSocket { path, .. } => {
            format!("mqtt over secure WebSocket listening on wss://{address}{path}")
        }
    };
    listeners.doors().map(line).collect()
}
