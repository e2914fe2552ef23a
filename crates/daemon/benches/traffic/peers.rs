//! The servers that are compared: where they are, and how they are configured.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

use crate::support::fuotad::Site;
use crate::support::process::{Process, free_addresses};

/// A server of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fuotad,
    Mosquitto,
    Rumqttd,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuotad => "fuotad",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        }
    }
}

/// The servers of this run.
pub struct Peers {
    pub mosquitto: Option<PathBuf>,
    pub rumqttd: Option<PathBuf>,
}

/// What the servers are told beside their address.
#[derive(Default)]
pub struct Setting<'a> {
    /// PEM files of certificate and key: clients come over TLS then.
    pub tls: Option<(&'a Path, &'a Path)>,
    /// Device ids and tokens: every client needs one.
    pub accounts: Option<&'a [(String, String)]>,
    /// `persistence.sync` of fuotad, where it is not the default.
    pub sync: Option<&'a str>,
}

impl Peers {
    /// Finds the peers: where they were named, in the usual places, or where the instructions
    /// below put them. Says which one it leaves out.
    pub fn find(mosquitto: Option<PathBuf>, rumqttd: Option<PathBuf>) -> Self {
        let mosquitto = mosquitto.or_else(|| in_path("mosquitto"));
        if mosquitto.is_none() {
            println!(
                "LEFT OUT: mosquitto; install it (Debian: apt-get install mosquitto), or name it by --mosquitto"
            );
        }
        let rumqttd = rumqttd.or_else(|| in_path("rumqttd")).or_else(|| {
            let built = target_dir().join("peers/bin/rumqttd");
            built.is_file().then_some(built)
        });
        if rumqttd.is_none() {
            println!(
                "LEFT OUT: stock rumqttd; `cargo install rumqttd --version 0.20.0 --root {}`, or name it by --rumqttd",
                target_dir().join("peers").display()
            );
        }
        Self { mosquitto, rumqttd }
    }

    /// fuotad first, then those that were found.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Fuotad];
        kinds.extend(self.mosquitto.as_ref().map(|_| Kind::Mosquitto));
        kinds.extend(self.rumqttd.as_ref().map(|_| Kind::Rumqttd));
        kinds
    }

    /// A line for each peer with its version.
    pub async fn describe(&self) {
        for (program, argument) in [(&self.mosquitto, "-h"), (&self.rumqttd, "--version")] {
            let Some(program) = program else { continue };
            let said = Command::new(program).arg(argument).output().await;
            let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let said = said.unwrap_or_else(|error| error.to_string());
            println!("{} ({})", said.lines().next().unwrap_or("no version"), program.display());
        }
    }

    /// Starts a server of this kind.
    pub async fn start(&self, kind: Kind, setting: &Setting<'_>) -> anyhow::Result<Process> {
        match kind {
            Kind::Fuotad => {
                let site = Site {
                    tls: setting.tls,
                    tokens: setting.accounts.is_some(),
                    image: None,
                    http: false,
                    sync: setting.sync,
                };
                let process = site.start().await?;
                if let Some(accounts) = setting.accounts {
                    register(&process, accounts).await?;
                }
                Ok(process)
            }
            Kind::Mosquitto => self.mosquitto(setting).await,
            Kind::Rumqttd => self.rumqttd(setting).await,
        }
    }

    /// With Nagle's delay off, as fuotad has it, and with nothing dropped for a full queue: what is
    /// dropped costs a server nothing more.
    async fn mosquitto(&self, setting: &Setting<'_>) -> anyhow::Result<Process> {
        let program = self.mosquitto.as_ref().context("mosquitto is left out")?;
        let dir = tempfile::tempdir()?;
        let [address] = free_addresses()?;
        let mut config = format!(
            "listener {} 127.0.0.1\nset_tcp_nodelay true\nmax_queued_messages 0\nuser root\nlog_dest none\n",
            address.port()
        );
        if let Some((cert, key)) = setting.tls {
            config += &format!("certfile {}\nkeyfile {}\n", cert.display(), key.display());
        }
        match setting.accounts {
            None => config += "allow_anonymous true\n",
            Some(accounts) => {
                let file = dir.path().join("passwords");
                let lines = accounts.iter().map(|(id, token)| format!("{id}:{token}\n"));
                std::fs::write(&file, lines.collect::<String>())?;
                let hashed = Command::new("mosquitto_passwd").arg("-U").arg(&file).output().await;
                let hashed = hashed.context("mosquitto_passwd does not run")?;
                anyhow::ensure!(hashed.status.success(), "mosquitto_passwd: {hashed:?}");
                config += &format!("allow_anonymous false\npassword_file {}\n", file.display());
            }
        }
        let file = dir.path().join("mosquitto.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(file);
        Process::start("mosquitto", address, command, Some(dir)).await
    }

    /// With the values of the configuration that it prints itself (`rumqttd generate-config`), and
    /// without its other listeners.
    async fn rumqttd(&self, setting: &Setting<'_>) -> anyhow::Result<Process> {
        let program = self.rumqttd.as_ref().context("rumqttd is left out")?;
        anyhow::ensure!(
            setting.tls.is_none() && setting.accounts.is_none(),
            "rumqttd is measured over TCP without accounts only"
        );
        let dir = tempfile::tempdir()?;
        let [address] = free_addresses()?;
        let config = format!(
            "id = 0\n\
             [router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
             max_segment_size = 104857600\nmax_segment_count = 10\n\
             [v4.1]\nname = \"v4-1\"\nlisten = \"{address}\"\nnext_connection_delay_ms = 1\n\
             [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\n\
             max_inflight_count = 100\ndynamic_filters = true\n"
        );
        let file = dir.path().join("rumqttd.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("--quiet").arg("--config").arg(file);
        Process::start("rumqttd", address, command, Some(dir)).await
    }
}

/// Registers devices with their tokens, by the command that an operator would use.
async fn register(fuotad: &Process, accounts: &[(String, String)]) -> anyhow::Result<()> {
    let dir = fuotad.dir().context("no directory")?;
    let mut table = String::from("id,token\n");
    for (id, token) in accounts {
        table += &format!("{id},{token}\n");
    }
    let file = dir.join("fleet.csv");
    std::fs::write(&file, table)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_fuotad"));
    command.args(["device", "import"]).arg(file);
    command.arg("--config").arg(dir.join(crate::support::fuotad::CONFIG));
    let imported = command.output().await?;
    anyhow::ensure!(imported.status.success(), "the devices are not imported: {imported:?}");
    Ok(())
}

/// A program of the search path, or of the directories of daemons that are often not in it.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name));
    found.into_iter().find(|program| program.is_file())
}

/// Cargo's target directory, in which `fuotad` was built.
fn target_dir() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_fuotad"));
    built.ancestors().nth(2).unwrap_or(built).to_owned()
}
