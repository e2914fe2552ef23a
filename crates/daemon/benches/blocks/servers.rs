//! The servers under measurement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::process::Command;

use crate::support::firmware::Image;
use crate::support::fuotad::Site;
use crate::support::process::{Process, free_addresses, workers};

/// A running server, and what its devices can expect.
pub struct Server {
    pub process: Process,
    /// The image that it offers. `None`: the floor, which answers with anything.
    pub offers: Option<Arc<Image>>,
    /// Blocks of a device's life, the same for both.
    pub blocks: u32,
    born: AtomicU64,
}

impl Server {
    /// Starts `fuotad` as a site would, with the image in the watched directory.
    pub async fn fuotad(image: &Arc<Image>) -> anyhow::Result<Self> {
        let process = Site { image: Some(image), http: true, ..Site::default() }.start().await?;
        let offers = Some(Arc::clone(image));
        Ok(Self { process, offers, blocks: image.blocks, born: AtomicU64::new(0) })
    }

    /// Starts this program as the floor, with frames of `frame` bytes.
    pub async fn floor(frame: usize, image: &Image) -> anyhow::Result<Self> {
        let [address] = free_addresses()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--floor", &address.to_string(), "--frame", &frame.to_string()]);
        // As many workers as fuotad has, also where somebody overrides them.
        command.env("TOKIO_WORKER_THREADS", workers().to_string());
        let process = Process::start("floor", address, command, None).await?;
        Ok(Self { process, offers: None, blocks: image.blocks, born: AtomicU64::new(0) })
    }

    /// A client id that no device had before.
    pub fn new_id(&self) -> String {
        format!("bench-{:06}", self.born.fetch_add(1, Relaxed))
    }
}
