//! `fuotad firmware …`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::Value;

use super::{
    api::{Api, Remote},
    output,
    repeat::Repeat,
    signing,
    table::{Table, field},
};

/// What to do with firmware.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List every file, the refused and held ones with the reason
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one file: what it is, and what decided its title, version and model
    Show {
        /// Its path, its id or its SHA-256
        firmware: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Look at the directory or bucket now, and wait until that is done
    Rescan {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make a pair of keys for signatures (offline)
    Keygen(signing::KeygenArgs),
    /// Sign a file (offline); the signature goes beside it as FILE.minisig
    Sign(signing::SignArgs),
    /// Check a file's signature (offline)
    Verify(signing::VerifyArgs),
    /// Upload an image; nobody gets it before `fuotad deployment create`
    Upload {
        /// The image; its name gives title and version where they are not named
        file: PathBuf,
        /// Its title
        #[arg(long, value_name = "NAME")]
        title: Option<String>,
        /// Its version
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// The model that it is for
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Notes for people
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
        /// Its signature [default: FILE.minisig, where there is one]
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
        #[command(flatten)]
        repeat: Repeat,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Withdraw firmware for good: its bytes are never offered again, and what runs ends
    Withdraw {
        /// Its path, its id or its SHA-256; also of a file that is gone and kept for rollbacks
        firmware: String,
        #[command(flatten)]
        remote: Remote,
    },
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::List { json, remote } => {
            let mut files = Api::new(&remote, config)?.list(&["firmware"], &[]).await?;
            if json {
                return output::json(&files);
            }
            files.sort_by_key(|file| field(file, "path"));
            output::text(&table(&files))
        }
        Command::Show { firmware, json, remote } => {
            let api = Api::new(&remote, config)?;
            let id = find(&api, &firmware).await?;
            let file: Value = api.get(&["firmware", &id]).await?;
            if json {
                return output::json(&file);
            }
            output::text(&sheet(&file))
        }
        Command::Rescan { json, remote } => {
            let api = Api::new(&remote, config)?.patient();
            let answer = api.send(Method::POST, &["firmware", "rescan"], &[], None::<&()>).await?;
            if json {
                return output::json(&answer);
            }
            let text = match answer.get("problem").and_then(Value::as_str) {
                Some(problem) => format!("{}\n", output::safe(problem)),
                None => format!(
                    "{}: {} files accepted ({} of them cannot be read now), {} refused\n",
                    field(&answer, "url"),
                    field(&answer, "files"),
                    field(&answer, "troubled"),
                    field(&answer, "refused")
                ),
            };
            output::text(&text)
        }
        Command::Keygen(args) => signing::keygen(&args),
        Command::Sign(args) => signing::sign(&args),
        Command::Verify(args) => signing::verify(&args, config),
        Command::Upload { file, title, version, model, notes, signature, repeat, json, remote } => {
            let api = Api::new(&remote, config)?.patient();
            let image = Part::file(&file)
                .await
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let signature = match signature {
                Some(path) => Some(read_signature(&path)?),
                None => {
                    let mut beside = file.clone().into_os_string();
                    beside.push(".minisig");
                    let beside = PathBuf::from(beside);
                    beside.exists().then(|| read_signature(&beside)).transpose()?
                }
            };
            let mut form = Form::new();
            for (name, value) in [
                ("name", title),
                ("version", version),
                ("model", model),
                ("notes", notes),
                ("signature", signature),
            ] {
                if let Some(value) = value {
                    form = form.text(name, value);
                }
            }
            let form = form.part("file", image);
            let uploaded = api.upload(&["firmware"], &repeat.headers(), form).await?;
            if json {
                return output::json(&uploaded);
            }
            output::text(&table(std::slice::from_ref(&uploaded)))
        }
        Command::Withdraw { firmware, remote } => {
            let api = Api::new(&remote, config)?;
            let id = find(&api, &firmware).await?;
            api.send(Method::DELETE, &["firmware", &id], &[], None::<&()>).await?;
            Ok(())
        }
    }
}

fn read_signature(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// One file for people: a line for each thing that is known.
fn sheet(file: &Value) -> String {
    let decided = |name: &str| {
        let value = field(file, &format!("{name}/value"));
        let from = field(file, &format!("{name}/from"));
        if value.is_empty() { value } else { format!("{value} ({from})") }
    };
    let list = |name: &str| {
        let texts = file.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        texts.iter().filter_map(Value::as_str).map(output::safe).collect::<Vec<_>>()
    };
    let signature = [field(file, "signature/state"), field(file, "signature/key")].join(" ");
    let mut lines = vec![
        ("path", field(file, "path")),
        ("state", field(file, "state")),
        ("reason", field(file, "reason")),
        ("title", decided("title")),
        ("version", decided("version")),
        ("model", decided("model")),
        ("target", field(file, "target")),
        ("format", field(file, "format")),
        ("chip", field(file, "chip")),
        ("hardware", list("hardware").join(", ")),
        ("security counter", field(file, "security_counter")),
        ("signature", signature.trim().to_owned()),
        ("bytes", field(file, "size")),
        ("SHA-256", field(file, "digest")),
        ("dropped SHA-256", field(file, "dropped_digest")),
        ("deployments", list("deployments").join(", ")),
        ("notes", field(file, "notes")),
    ];
    lines.extend(list("warnings").into_iter().map(|warning| ("warning", warning)));
    let known = lines.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| format!("{name:<17} {value}\n")).collect()
}

/// The id of the firmware of this id or path.
pub async fn find(api: &Api, name: &str) -> anyhow::Result<String> {
    let files = api.list(&["firmware"], &[]).await?;
    // A file that was replaced is listed beside the one that replaced it, and is not meant by the
    // path.
    let by_path = |file: &&Value| field(file, "path") == name && field(file, "state") != "replaced";
    let by_content = |file: &&Value| field(file, "id") == name || field(file, "digest") == name;
    let mut found: Vec<_> = files.iter().filter(by_path).collect();
    if found.is_empty() {
        found.extend(files.iter().find(by_content));
    }
    match found[..] {
        [file] => Ok(field(file, "id")),
        _ => anyhow::bail!("there is no firmware {name:?}; see `fuotad firmware list`"),
    }
}

fn table(files: &[Value]) -> String {
    let mut table = Table::new(&[
        "PATH", "STATE", "TITLE", "VERSION", "TARGET", "MODEL", "BYTES", "SHA-256", "REASON",
    ]);
    for file in files {
        let digest: String = field(file, "digest").chars().take(12).collect();
        table.row(&[
            field(file, "path"),
            field(file, "state"),
            field(file, "title/value"),
            field(file, "version/value"),
            field(file, "target"),
            field(file, "model/value"),
            field(file, "size"),
            digest,
            field(file, "reason"),
        ]);
    }
    table.render()
}
