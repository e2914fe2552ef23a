//! `fuotad freeze` and `fuotad unfreeze`.

use std::path::Path;

use clap::Args as ClapArgs;
use reqwest::Method;

use super::{
    api::{Api, Remote},
    output,
    table::field,
};

/// Where.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Change nothing; only say whether offers are stopped, and by whom
    #[arg(long)]
    show: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Does it.
pub async fn run(args: &Args, freeze: bool, config: Option<&Path>) -> anyhow::Result<()> {
    let method = match (args.show, freeze) {
        (true, _) => Method::GET,
        (false, true) => Method::PUT,
        (false, false) => Method::DELETE,
    };
    let api = Api::new(&args.remote, config)?;
    let now = api.send(method, &["freeze"], &[], None::<&()>).await?;
    if args.json {
        return output::json(&now);
    }
    match now["frozen"] == serde_json::Value::Bool(true) {
        true => output::text(&format!(
            "all offers are stopped, by {}\n",
            output::safe(&field(&now, "by"))
        )),
        false => output::text("offers go on\n"),
    }
}
