//! `fuotad backup`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;

use super::{
    api::{Api, Remote},
    output,
    table::field,
};

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A directory that is not there yet; the daemon makes it
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Has the daemon copy everything.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<()> {
    let path = std::path::absolute(&args.path).context("the path cannot be used")?;
    let body = json!({ "path": path });
    let api = Api::new(&args.remote, config)?.patient();
    let made = api.send(Method::POST, &["backup"], &[], Some(&body)).await?;
    if args.json {
        return output::json(&made);
    }
    output::text(&format!(
        "{}: database, sessions, retained messages and {} images of {} bytes\n",
        field(&made, "path"),
        field(&made, "images"),
        field(&made, "image_bytes"),
    ))
}
