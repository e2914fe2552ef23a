//! `fuotad import mosquitto`: the users and the access rules of a mosquitto site.
//!
//! Users go into the running daemon, with their passwords, all of them or none. Rules are part of
//! the configuration, so they are printed for it.

mod acl;
mod block;
mod conf;
mod passwords;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args as ClapArgs;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    api::{Api, ApiError, Remote},
    output, user,
};
use acl::Translation;
use conf::Conf;
use passwords::Entry;

/// Where mosquitto's files are, and what becomes of them.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// mosquitto.conf, which names the files
    #[arg(long, value_name = "FILE", required_unless_present_any = ["passwords", "acl"])]
    config_file: Option<PathBuf>,
    /// Password file, as mosquitto_passwd writes it
    #[arg(long, value_name = "FILE")]
    passwords: Option<PathBuf>,
    /// ACL file
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,
    /// What the users may do
    #[arg(long, value_name = "ROLE", default_value = "service")]
    role: user::Role,
    /// Users that are devices: a name, or a pattern with * and ?; repeatable
    #[arg(long, value_name = "PATTERN")]
    devices: Vec<glob::Pattern>,
    /// Leave out the users that cannot be added
    #[arg(long)]
    skip: bool,
    /// Write the rules to this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    rules_out: Option<PathBuf>,
    /// Change nothing: say what would be added, and print the rules
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: Remote,
}

/// A sentence about a line of a file.
struct Remark<'a> {
    file: &'a Path,
    line: usize,
    text: String,
}

impl Remark<'_> {
    fn say(&self) {
        eprintln!("{}:{}: {}", self.file.display(), self.line, output::safe(&self.text));
    }
}

/// Does it.
pub async fn run(args: Args, config: Option<&Path>) -> anyhow::Result<()> {
    let conf = match &args.config_file {
        Some(path) => Conf::read(path)?,
        None => Conf::default(),
    };
    for note in &conf.notes {
        eprintln!("{}", output::safe(note));
    }
    let passwords = args.passwords.as_ref().or(conf.passwords.as_ref());
    let acl = args.acl.as_ref().or(conf.acl.as_ref());
    ensure!(
        passwords.is_some() || acl.is_some(),
        "the configuration names neither a password_file nor an acl_file"
    );
    let rules = acl.map(|path| rules(path)).transpose()?;
    if let Some(path) = passwords {
        let api = Api::new(&args.remote, config)?;
        add_users(&args, &api, path).await?;
    }
    let Some(rules) = rules else { return Ok(()) };
    let block = block::render(&rules.rules, conf.anonymous);
    match args.rules_out.as_ref().filter(|_| !args.dry_run) {
        Some(path) => std::fs::write(path, block)
            .with_context(|| format!("{} cannot be written", path.display()))?,
        None => output::text(&block)?,
    }
    eprintln!(
        "{} rules, for the configuration; they hold once it is read again (kill -HUP), another \
         auth.mode from the next start on",
        rules.rules.len()
    );
    Ok(())
}

/// The rules of an ACL file, with what is to be said about its lines.
fn rules(path: &Path) -> anyhow::Result<Translation> {
    let translation = acl::translate(&read(path)?);
    for (line, text) in translation.notes.iter().chain(&translation.problems) {
        Remark { file: path, line: *line, text: text.clone() }.say();
    }
    let problems = translation.problems.len();
    ensure!(
        problems == 0,
        "{problems} lines of {} cannot be rules; nothing was changed",
        path.display()
    );
    Ok(translation)
}

async fn add_users(args: &Args, api: &Api, path: &Path) -> anyhow::Result<()> {
    let (mut users, wrong) = passwords::read(&read(path)?);
    let remark = |(line, text)| Remark { file: path, line, text };
    let mut remarks: Vec<_> = wrong.into_iter().map(remark).collect();
    let total = users.len() + remarks.len();
    // The daemon knows which names are free and which hashes it can verify.
    let refused = refused(args, api, &users).await?;
    let mut row = 0..;
    let refused_row = |row| refused.iter().find(|(refused, _)| row == Some(*refused));
    users.retain(|user| match refused_row(row.next()) {
        Some((_, text)) => {
            remarks.push(remark((user.line, format!("{}: {text}", user.name))));
            false
        }
        None => true,
    });
    remarks.sort_by_key(|remark| remark.line);
    remarks.iter().for_each(Remark::say);
    if !remarks.is_empty() && !args.skip {
        bail!(
            "{} of {total} users cannot be added; nothing was changed (--skip leaves them out)",
            remarks.len()
        );
    }
    let devices = users.iter().filter(|user| is_device(args, user)).count();
    if args.dry_run {
        for user in &users {
            eprintln!("{}: {}", user.name, role(args, user));
        }
        eprintln!("{} users would be added, {devices} of them devices", users.len());
        return Ok(());
    }
    api.send(Method::POST, &["import"], &[], Some(&body(args, &users))).await?;
    eprintln!("{} users added, {devices} of them devices", users.len());
    Ok(())
}

/// Those that the daemon would not add, by their place, and why.
async fn refused(args: &Args, api: &Api, users: &[Entry]) -> anyhow::Result<Vec<(usize, String)>> {
    let dry_run = [("dry_run", "true".to_owned())];
    match api.send(Method::POST, &["import"], &dry_run, Some(&body(args, users))).await {
        Ok(_) => Ok(Vec::new()),
        Err(error) => match error.downcast::<ApiError>() {
            Ok(ApiError::Rows { rows, .. }) => {
                Ok(rows.into_iter().map(|row| (row.row, row.detail)).collect())
            }
            Ok(other) => Err(other.into()),
            Err(error) => Err(error),
        },
    }
}

fn body(args: &Args, users: &[Entry]) -> Value {
    let rows = users.iter().map(
        |user| json!({"name": user.name, "role": role(args, user), "password_hash": user.hash}),
    );
    json!({"users": rows.collect::<Vec<_>>()})
}

fn is_device(args: &Args, user: &Entry) -> bool {
    role(args, user) == user::Role::Device.name()
}

fn role(args: &Args, user: &Entry) -> &'static str {
    match args.devices.iter().any(|pattern| pattern.matches(&user.name)) {
        true => user::Role::Device.name(),
        false => args.role.name(),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
