//! Plugins that are part of the daemon itself.

pub mod client_log;
