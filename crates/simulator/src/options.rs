//! What a run does: how many devices, how they log in, how they behave, what goes wrong.

use std::path::PathBuf;
use std::time::Duration;

use crate::digest::Digest;
use crate::trust::TrustedKey;

/// A run of the simulator. [`Options::default`] is one well-behaved device on this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the broker, `HOST:PORT`.
    pub broker: String,
    /// How many devices; each is one task and one connection.
    pub devices: u32,
    /// Client ids are this and a running number of at least four digits: `sim-0001`.
    pub id_prefix: String,
    /// Connect with an empty client id, as the usual device of the reference does.
    pub empty_client_id: bool,
    /// One per device, in order. Empty: the devices have no token, which `open` mode accepts.
    pub credentials: Vec<Credential>,
    /// MQTT version.
    pub protocol: Protocol,
    /// What the devices speak.
    pub dialect: Dialect,
    /// Bytes of firmware in the blocks that a device of the native dialect asks for, 1 to 65,535.
    /// Those of the reference get what the manifest says.
    pub block_size: u16,
    /// Tell the broker this model: as an MQTT 5 user property, or in a `firmware_status` variable
    /// after the SUBSCRIBE with MQTT 3.1.1.
    pub model: Option<String>,
    /// Pause between a block and the next request; the reference device waits 100 ms.
    pub pace: Duration,
    /// Requests in flight at once, 1 to 64, in the native dialect to 4,096; the reference device
    /// has 1.
    pub window: u16,
    /// How long a device waits for a block before it asks again.
    pub retry_after: Duration,
    /// How often one block is asked for again before the device fails.
    pub max_retries: u32,
    /// Behave exactly as the reference device: one request after each block, whatever the block's
    /// index; nothing is asked for twice; a chunk that is missing at the end is a failure.
    /// `window`, `retry_after` and `max_retries` mean nothing then.
    pub strict_reference: bool,
    /// Keep what is there over a reboot, as a device with its image in flash does, and go on with it
    /// where a manifest names the same image again. Means nothing with `strict_reference`.
    pub resume: bool,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Seed of the faults: the same seed and options roll the same faults. `None`: a random one,
    /// which the summary names.
    pub seed: Option<u64>,
    /// The digest that the image must have; checked beside the one in the manifest.
    pub expect_sha256: Option<Digest>,
    /// The image must be signed by this key. Only the native dialect tells of signatures.
    pub trusted_key: Option<TrustedKey>,
    /// Largest image that a device accepts, in bytes; a manifest for more is a failure.
    pub max_image: u64,
    /// Write each device's image to `CLIENT-ID.bin` in this directory, which is created. Each
    /// device then holds its whole image in memory until it is complete.
    pub image_dir: Option<PathBuf>,
    /// After the image is complete, report its version in a `firmware_status` variable.
    pub report: bool,
    /// How long a device stays connected after its image is complete.
    pub linger: Duration,
    /// How long the run may take; devices that are not done by then have failed.
    pub timeout: Duration,
    /// How many devices may be connecting at the same time.
    pub connecting: usize,
    /// How progress is shown, on standard error.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            broker: "127.0.0.1:1883".into(),
            devices: 1,
            id_prefix: "sim-".into(),
            empty_client_id: false,
            credentials: Vec::new(),
            protocol: Protocol::V311,
            dialect: Dialect::default(),
            block_size: 4096,
            model: None,
            pace: Duration::ZERO,
            window: 1,
            retry_after: Duration::from_secs(2),
            max_retries: 10,
            strict_reference: false,
            resume: false,
            faults: Faults::default(),
            seed: None,
            expect_sha256: None,
            trusted_key: None,
            max_image: 512 * 1024 * 1024,
            image_dir: None,
            report: false,
            linger: Duration::ZERO,
            timeout: Duration::from_secs(600),
            connecting: 64,
            progress: Progress::Auto,
        }
    }
}

/// What goes wrong on purpose. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Probability, 0 to 1, that an arriving block or a request is lost; rolled for each.
    pub loss: f64,
    /// Probability, 0 to 1, that a request is sent twice or a block arrives twice; rolled for each.
    pub duplicates: f64,
    /// Drop the TCP connection after each so many blocks and connect again; 0: never.
    pub reconnect_every: u32,
    /// How often each device reboots in mid-download: it loses what it has (unless it resumes),
    /// connects again and waits for the manifest. The moments are random.
    pub reboots: u32,
    /// A device that reboots is gone for a random time up to this.
    pub down: Duration,
}

/// How a device logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Client id; `None` for one made of the prefix and the device's number.
    pub id: Option<String>,
    /// Sent as the password, with the user name `Token`.
    pub token: String,
}

// A token is a secret: it must not reach a log through `{:?}`.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Credential {
    /// Reads a file of credentials: on each line `TOKEN` or `ID,TOKEN`; empty lines and lines that
    /// start with `#` are skipped.
    ///
    /// # Errors
    /// Names the number of a line that has no token.
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, token) = match line.split_once(',') {
                Some((id, token)) => {
                    (Some(id.trim().to_owned()).filter(|id| !id.is_empty()), token.trim())
                }
                None => (None, line),
            };
            if token.is_empty() {
                return Err(format!("line {}: no token; write TOKEN or ID,TOKEN", number + 1));
            }
            all.push(Self { id, token: token.to_owned() });
        }
        Ok(all)
    }
}

/// MQTT version that the devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// MQTT 3.1.1, as the devices of the field do.
    #[default]
    V311,
    /// MQTT 5.
    V5,
}

/// What the devices speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// JSON on `tago/data/post`, as the devices of the field do.
    #[default]
    Reference,
    /// The binary dialect of `docs/dialects/native.md`.
    Native,
}

impl Dialect {
    fn max_window(self) -> u16 {
        match self {
            Dialect::Reference => 64,
            Dialect::Native => 4096,
        }
    }
}

/// How progress is shown, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Progress {
    /// Bars on a terminal, otherwise lines.
    #[default]
    Auto,
    /// A bar for each device, or one for all where there are many.
    Bars,
    /// A plain line now and then.
    Lines,
    /// Nothing.
    Silent,
}

impl Options {
    /// What is wrong with the options, as a sentence; `None` if nothing is.
    pub(crate) fn complaint(&self) -> Option<String> {
        let probability = |p: f64| (0.0..=1.0).contains(&p);
        if self.devices == 0 {
            Some("devices must be at least 1".into())
        } else if !(1..=self.dialect.max_window()).contains(&self.window) {
            let most = self.dialect.max_window();
            Some(format!("window is {}, but must be 1 to {most}", self.window))
        } else if self.block_size == 0 {
            Some("block_size must be at least 1".into())
        } else if self.strict_reference && self.dialect != Dialect::Reference {
            Some("strict_reference is for devices of the reference".into())
        } else if !probability(self.faults.loss) || !probability(self.faults.duplicates) {
            Some("loss and duplicates are probabilities: they must be 0 to 1".into())
        } else if self.retry_after.is_zero() {
            Some("retry_after must be more than 0".into())
        } else if self.connecting == 0 {
            Some("connecting must be at least 1".into())
        } else if !self.credentials.is_empty() && self.credentials.len() < self.devices as usize {
            Some(format!(
                "{} devices, but credentials for only {}; give one for each device or none",
                self.devices,
                self.credentials.len()
            ))
        } else {
            None
        }
    }

    /// The name of device `number` (from 0) in reports and file names.
    pub(crate) fn name(&self, number: u32) -> String {
        self.credentials
            .get(number as usize)
            .and_then(|credential| credential.id.clone())
            .unwrap_or_else(|| format!("{}{:04}", self.id_prefix, number + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_tokens_with_or_without_an_id() {
        let all =
            Credential::parse_lines("# pump hall\n\nsecret\n pump-7 , other \n,third").unwrap();
        let expected = [(None, "secret"), (Some("pump-7"), "other"), (None, "third")];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(id, token)| Credential { id: id.map(str::to_owned), token: token.to_owned() })
            .collect();
        assert_eq!(all, expected);
        assert!(!format!("{all:?}").contains("secret"), "a token is never printed");
        assert!(Credential::parse_lines("a\nb,").unwrap_err().starts_with("line 2"));
    }

    #[test]
    fn wrong_options_are_named() {
        let good = Options::default();
        assert_eq!(good.complaint(), None);
        let bad = |change: fn(&mut Options)| {
            let mut options = good.clone();
            change(&mut options);
            options.complaint().expect("a complaint")
        };
        assert!(bad(|o| o.devices = 0).contains("devices"));
        assert!(bad(|o| o.window = 65).contains("65"));
        assert!(bad(|o| o.faults.loss = 1.5).contains("loss"));
        assert!(bad(|o| o.faults.duplicates = f64::NAN).contains("duplicates"));
        let too_few = bad(|o| {
            o.devices = 2;
            o.credentials = vec![Credential { id: None, token: "t".into() }];
        });
        assert!(too_few.contains("2 devices"));
    }

    #[test]
    fn names_count_from_one() {
        let mut options = Options::default();
        assert_eq!(options.name(0), "sim-0001");
        options.credentials = vec![Credential { id: Some("pump-7".into()), token: "t".into() }];
        assert_eq!(options.name(0), "pump-7");
    }
}
