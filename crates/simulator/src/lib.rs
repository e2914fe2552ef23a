//! Devices as the field has them, with faults.
//!
//! The simulator runs many devices that speak the reference protocol (JSON variables on
//! `tago/data/post`) or the native dialect (`docs/dialects/native.md`) against a broker, and says whether each of them received the
//! image byte for byte. It shares no code with the server, so that a mistake in one is not
//! excused by the same mistake in the other.
//!
//! - [`options`] says what a run does; [`run()`] does it; [`Summary`] says how it went.
//! - `wire` reads and writes the reference's JSON, `native` the native dialect's bytes, `words`
//!   knows which of both; `assembly` puts blocks together and checks them,
//!   with a key that is trusted by `trust`.
//! - `device` is one device without any I/O: events and the time go in, actions come out.
//! - `mqtt` is the MQTT that such a device needs, `link` a connection that speaks it.
//! - `client` joins a device to its link and does to it what `faults` rolls.
//! - `progress` shows on the terminal how far the devices are.
//!
//! ```no_run
//! # async fn example() -> Result<(), simulator::SimulatorError> {
//! use simulator::{Options, run};
//! use tokio_util::sync::CancellationToken;
//!
//! let options = Options { devices: 100, window: 4, ..Options::default() };
//! let summary = run(options, CancellationToken::new()).await?;
//! println!("{summary}");
//! assert!(summary.all_ok());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod assembly;
mod client;
mod device;
mod digest;
mod faults;
mod link;
mod mqtt;
mod native;
pub mod options;
mod progress;
mod run;
mod summary;
mod trust;
mod wire;
mod words;

pub use digest::{Digest, NotADigest};
pub use options::{Credential, Dialect, Faults, Options, Progress, Protocol};
pub use run::{SimulatorError, run};
pub use summary::{DeviceReport, Summary};
pub use trust::{NotAKey, TrustedKey};
