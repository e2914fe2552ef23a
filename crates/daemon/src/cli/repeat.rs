//! `--idempotency-key`, of every command that makes something.

use clap::Args;

/// How a request can be repeated.
#[derive(Args, Debug)]
pub struct Repeat {
    /// Names this request: repeated with the same key it makes nothing new, and prints the same
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Repeat {
    /// The header that says it.
    pub fn headers(self) -> Vec<(&'static str, String)> {
        self.idempotency_key.map(|key| ("Idempotency-Key", key)).into_iter().collect()
    }
}
