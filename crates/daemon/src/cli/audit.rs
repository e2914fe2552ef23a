//! `fuotad audit`.

use std::path::Path;

use clap::Args as ClapArgs;
use reqwest::Method;
use serde_json::Value;

use super::{
    api::{Api, Remote},
    output,
    table::{Table, field, time},
};

/// The most lines that one request gives.
const PAGE: usize = 1000;

/// Options.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// How many lines
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Prints who did what, the newest first.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<()> {
    let api = Api::new(&args.remote, config)?;
    let (mut lines, mut after) = (Vec::new(), None::<String>);
    while lines.len() < args.limit {
        let limit = (args.limit - lines.len()).min(PAGE);
        let mut query = vec![("limit", limit.to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        let page = api.send(Method::GET, &["audit"], &query, None::<&()>).await?;
        lines.extend(page["audit"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if args.json { output::json(&lines) } else { output::text(&table(&lines)) }
}

fn table(lines: &[Value]) -> String {
    let mut table = Table::new(&["AT", "WHO", "FROM", "WHAT", "TO", "DETAIL"]);
    for line in lines {
        table.row(&[
            time(line, "at"),
            field(line, "actor"),
            field(line, "origin"),
            field(line, "action"),
            field(line, "subject"),
            field(line, "detail"),
        ]);
    }
    table.render()
}
