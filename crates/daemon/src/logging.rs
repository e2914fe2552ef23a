//! Structured logs on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::{Log, LogFormat};

/// The router's spans around each message cost ten times the routing and contain client topics,
/// so they are off whatever the configuration says.
const ALWAYS_OFF: &str = "rumqttd";

/// The filter that `log.level` describes: a level (`off`, `error`, `warn`, `info`, `debug`,
/// `trace`), or a list such as `info,fuota=debug` with one level per target.
///
/// # Errors
/// One sentence that goes behind the key's name.
pub fn targets(level: &str) -> Result<Targets, String> {
    let expected = "must be a level (off, error, warn, info, debug, trace) or a list such as \"info,fuota=debug\"";
    let mut filter = Targets::new();
    for part in level.split(',').map(str::trim) {
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part),
        };
        // LevelFilter would also take numbers and an empty text.
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        let level = match level.to_ascii_lowercase() {
            level if known.contains(&level.as_str()) => {
                level.parse::<LevelFilter>().map_err(|_| expected.to_owned())?
            }
            _ => return Err(format!("{expected}, not {part:?}")),
        };
        filter = match target {
            None => filter.with_default(level),
            Some("") => return Err(format!("{expected}, not {part:?}")),
            // A part of the router named here would be more exact than the rule below.
            Some(target) if target.split("::").next() == Some(ALWAYS_OFF) => {
                return Err(format!(
                    "cannot set {target}: the log of the embedded router is always off"
                ));
            }
            Some(target) => filter.with_target(target, level),
        };
    }
    Ok(filter.with_target(ALWAYS_OFF, LevelFilter::OFF))
}

/// The level of the process's log, which may change.
#[derive(Clone)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// From now on what this filter lets pass, of [`filter`].
    ///
    /// # Errors
    /// The process does not log any more.
    pub fn set(&self, filter: Targets) -> anyhow::Result<()> {
        Ok(self.0.reload(filter)?)
    }
}

/// The filter of `log.level`.
///
/// # Errors
/// It makes no sense: one sentence that names the key.
pub fn filter(level: &str) -> anyhow::Result<Targets> {
    targets(level).map_err(|reason| anyhow::anyhow!("log.level {reason}"))
}

/// Starts logging for the whole process.
///
/// # Errors
/// The level makes no sense, or logging has been started before.
pub fn start(log: &Log) -> anyhow::Result<Level> {
    let (filter, level) = reload::Layer::new(filter(&log.level)?);
    let registry = tracing_subscriber::registry().with(filter);
    match log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            registry
                .with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr))
                .try_init()?;
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init()?,
    }
    Ok(Level(level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn levels_per_target() {
        let filter = targets("info, fuota=debug").unwrap();
        assert!(filter.would_enable("broker", &Level::INFO));
        assert!(!filter.would_enable("broker", &Level::DEBUG));
        assert!(filter.would_enable("fuota::engine", &Level::DEBUG));
        assert!(targets("OFF").is_ok());
    }

    #[test]
    fn the_router_is_never_logged() {
        let filter = targets("trace").unwrap();
        assert!(!filter.would_enable("rumqttd::router::routing", &Level::ERROR));
        for level in ["rumqttd=trace", "info,rumqttd::router=error"] {
            assert!(targets(level).unwrap_err().contains("always off"), "{level}");
        }
    }

    #[test]
    fn nonsense_is_an_error_that_shows_it() {
        for level in ["loud", "", "info,", "=info", "fuota=", "3", "fuota=loud"] {
            assert!(targets(level).is_err(), "{level:?}");
        }
        assert!(targets("info,loud").unwrap_err().contains("\"loud\""));
    }
}
