//! `fuotad`: configuration to running parts to an orderly stop, and the command line.
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | `broker.toml` and the environment, typed and checked |
//! | [`cli`] | commands, and the client of the admin interface that most of them are |
//! | [`serve`] | the daemon: all parts started, watched and stopped in order |
//! | [`backup`] | a copy of everything at one moment |
//! | [`certificates`] | certificates of `mqtt.tls` and `admin.tls`, at start and when they change |
//! | [`firmware_dir`] | the watched directory at start |
//! | [`logging`], [`panics`] | structured logs |
//! | [`lock`] | one daemon per data directory |
//! | [`token`] | the admin token |
//! | [`plugins`] | plugins of the daemon itself |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod backup;
mod certificates;
mod cli;
mod config;
mod firmware_dir;
mod lock;
mod logging;
mod panics;
mod plugins;
mod serve;
mod token;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The TLS of outgoing requests (a bucket, a remote admin interface) needs one provider; that
    // one is there already is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::main()
}
