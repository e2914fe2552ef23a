//! `fuotad check-config`.

use std::{path::Path, process::ExitCode};

use super::{exit, output, table::Table};
use crate::{certificates::Certificates, config::Config};

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every setting with its source, or every mistake on a line of its own.
pub fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => {
            for problem in error.problems() {
                eprintln!("fuotad: {problem}");
            }
            return Ok(ExitCode::from(exit::FAILURE));
        }
    };
    // Here and at the start only: other commands may be run by somebody who must not read the key.
    if let Err(problem) = Certificates::load(&config) {
        eprintln!("fuotad: {problem}");
        return Ok(ExitCode::from(exit::FAILURE));
    }
    if args.json {
        output::json(&config.settings)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for setting in &config.settings {
        table.row(&[
            setting.key.to_owned(),
            setting.value.clone().unwrap_or_default(),
            setting.source.clone(),
        ]);
    }
    let verdict = match &config.file {
        Some(file) => format!("{} is fine\n", file.display()),
        None => "there is no broker.toml here; the defaults are fine\n".to_owned(),
    };
    output::text(&(table.render() + &verdict))?;
    Ok(ExitCode::SUCCESS)
}
