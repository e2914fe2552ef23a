//! `fuotad` as a site runs it: the release binary with a configuration file, its defaults but for
//! ports, directories and a quiet log.

use std::path::Path;

use tokio::process::Command;

use super::firmware::Image;
use super::process::{Process, free_addresses};

/// What of a site matters to a measurement.
#[derive(Default)]
pub struct Site<'a> {
    /// In the watched directory, where there is one.
    pub image: Option<&'a Image>,
    /// PEM files of certificate and key: clients come over TLS alone then.
    pub tls: Option<(&'a Path, &'a Path)>,
    /// Whether every client needs a token.
    pub tokens: bool,
    /// Whether devices may fetch over HTTP.
    pub http: bool,
    /// `persistence.sync`, where it is not the default.
    pub sync: Option<&'a str>,
}

/// Name of the configuration file in the server's directory.
pub const CONFIG: &str = "broker.toml";

impl Site<'_> {
    pub async fn start(&self) -> anyhow::Result<Process> {
        let dir = tempfile::tempdir()?;
        let [address, admin, http] = free_addresses()?;
        let door = match self.tls {
            None => format!("[mqtt]\nlisten = \"{address}\"\n"),
            Some((cert, key)) => format!(
                "[mqtt]\nlisten = \"off\"\n\
                 [mqtt.tls]\nlisten = \"{address}\"\ncert = {cert:?}\nkey = {key:?}\n"
            ),
        };
        let sync = self.sync.unwrap_or("os");
        let downloads =
            if self.http { format!("[http]\nlisten = \"{http}\"\n") } else { String::new() };
        let mode = if self.tokens { "token" } else { "open" };
        let config = format!(
            "data_dir = \"data\"\n\
             {door}\
             [auth]\nmode = \"{mode}\"\n\
             [store]\nurl = \"file:firmware\"\nsettle = \"100ms\"\n\
             [admin]\nlisten = \"{admin}\"\n\
             {downloads}\
             [persistence]\nsync = \"{sync}\"\n\
             [log]\nlevel = \"warn\"\n"
        );
        std::fs::write(dir.path().join(CONFIG), config)?;
        std::fs::create_dir(dir.path().join("firmware"))?;
        if let Some(image) = self.image {
            std::fs::write(dir.path().join("firmware/bench-1.0.0.bin"), &image.bytes)?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuotad"));
        command.arg("--config").arg(dir.path().join(CONFIG));
        let mut process = Process::start("fuotad", address, command, Some(dir)).await?;
        process.http = self.http.then_some(http);
        Ok(process)
    }
}
