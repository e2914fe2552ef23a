//! HTTP over the fuota service and the broker's status. It has no rule of its own: what may be
//! done to devices and firmware is decided by the service, what clients are is the broker's.
//!
//! The way of a request: [`serve`] (bounded connections, slow ones end) → `doors` (Host and
//! Origin, then the bearer token for everything under `/api`) → one handler → JSON, or a
//! problem as RFC 9457 describes it.
//!
//! | module | subject |
//! | --- | --- |
//! | [`settings`] | token and names that the daemon gives |
//! | `doors` | who may ask: Host, Origin, bearer token |
//! | `problem` | errors as `application/problem+json` |
//! | `extract` | bodies, queries and paths, bounded and strict |
//! | `form` | the body of an upload, metered |
//! | `page` | listings in pages |
//! | `health` | `/healthz` and `/readyz` |
//! | `session` | logins of the page: cookies, CSRF |
//! | `ui` | the page's files, embedded |
//! | `metrics` | `/metrics` for Prometheus |
//! | `openapi` | what the interface takes and gives, at `/api/v1/openapi.json` |
//! | `devices`, `users`, `import`, `firmware`, `deployments`, `freeze`, `audit`, `fleet`, `events`, `clients`, `retained`, `status`, `backup` | one resource each, under `/api/v1` |
//! | `places` | how many answers that last one login or device may have |
//! | `downloads` | what devices fetch, on a listener of its own |
//! | `asked` | what of an image they ask for: conditions and ranges |
//! | `server`, `stall` | connections, time limits, the orderly stop |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod asked;
mod audit;
mod backup;
mod clients;
mod deployments;
mod devices;
mod doors;
mod downloads;
mod events;
mod extract;
mod firmware;
mod fleet;
mod form;
mod freeze;
mod health;
mod import;
mod metrics;
mod openapi;
mod page;
mod places;
mod problem;
mod retained;
mod routes;
mod server;
mod session;
pub mod settings;
mod stall;
mod status;
#[cfg(test)]
mod tests;
mod ui;
mod users;

pub use backup::{Backup, BackupError, BackupFuture, BackupView};
pub use downloads::downloads;
pub use health::{Check, Readiness};
pub use routes::router;
pub use server::{Limits, TlsSource, serve, serve_with};
pub use settings::Settings;
