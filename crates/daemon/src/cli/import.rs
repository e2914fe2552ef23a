//! `fuotad device import`: devices out of a table.
//!
//! Every row is checked, here and by the daemon, and all are added in one commit: a table with a
//! mistake changes nothing, and neither does a crash amid the import.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    api::{Api, ApiError},
    csv, output,
    repeat::Repeat,
    table::field,
};

/// What a column that holds a label is called, before the label's name.
const LABEL: &str = "label.";

/// One row, as the daemon takes it.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Row {
    #[serde(skip)]
    line: usize,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// Adds the devices of the table and prints `id,token` for those whose token was made up;
/// a dry run ends before the first.
pub async fn run(api: &Api, path: &Path, dry_run: bool, repeat: Repeat) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let rows = read(&text).map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))?;
    let query = [("dry_run", dry_run.to_string())];
    let body = json!({"devices": rows});
    let headers = repeat.headers();
    let sent = api.send_with(Method::POST, &["import"], &query, &headers, Some(&body)).await;
    let imported = match sent {
        Ok(imported) => imported,
        Err(error) => {
            let Some(ApiError::Rows { rows: refused, .. }) = error.downcast_ref() else {
                return Err(error);
            };
            for refused in refused {
                let line = rows.get(refused.row).map_or(0, |row| row.line);
                eprintln!("line {line}: {}", refused.detail);
            }
            let (count, all) = (refused.len(), rows.len());
            bail!("{count} of {all} rows cannot be added; nothing was changed");
        }
    };
    if dry_run {
        return output::text(&format!("{} devices would be added\n", rows.len()));
    }
    let Some(devices) = imported.get("devices").and_then(Value::as_array) else { return Ok(()) };
    let made = devices.iter().filter(|device| device.get("token").is_some());
    let lines = made.map(|device| format!("{},{}\n", field(device, "id"), field(device, "token")));
    output::text(&lines.collect::<String>())?;
    eprintln!("{} devices added; tokens are shown only now", rows.len());
    Ok(())
}

/// The rows of the table; its first row names the columns.
fn read(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut table = csv::parse(text).map_err(anyhow::Error::msg)?.into_iter();
    let Some((_, columns)) = table.next() else { bail!("it is empty") };
    ensure!(columns.iter().any(|column| column == "id"), "the first line must name a column id");
    ensure!(
        columns.iter().collect::<BTreeSet<_>>().len() == columns.len(),
        "a column is named twice"
    );
    let (mut ids, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    let mut rows = Vec::new();
    for (line, values) in table {
        ensure!(
            values.len() == columns.len(),
            "line {line}: {} values for {} columns",
            values.len(),
            columns.len()
        );
        let mut row = Row { line, ..Row::default() };
        for (column, value) in columns.iter().zip(values) {
            let value = value.trim();
            let given = (!value.is_empty()).then(|| value.to_owned());
            match column.as_str() {
                "id" => row.id = value.to_owned(),
                "token" => row.token = given,
                "model" => row.model = given,
                "groups" => {
                    row.groups = value.split_whitespace().map(str::to_owned).collect();
                }
                other => {
                    let Some(label) = other.strip_prefix(LABEL) else {
                        bail!(
                            "the column {other:?} is not known; use id, token, model, groups or {LABEL}NAME"
                        );
                    };
                    row.labels.extend(given.map(|value| (label.to_owned(), value)));
                }
            }
        }
        ensure!(ids.insert(row.id.clone()), "line {line}: the id {:?} stands there twice", row.id);
        if let Some(token) = &row.token {
            ensure!(tokens.insert(token.clone()), "line {line}: its token stands there twice");
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_in_any_order() {
        let rows =
            read("groups,id,label.floor,token,model\nhall-1 hall-2,a,3,t,m\n,b,,,\n").unwrap();
        assert_eq!(
            rows[0],
            Row {
                line: 2,
                id: "a".into(),
                token: Some("t".into()),
                model: Some("m".into()),
                groups: vec!["hall-1".into(), "hall-2".into()],
                labels: BTreeMap::from([("floor".into(), "3".into())]),
            }
        );
        assert_eq!(rows[1], Row { line: 3, id: "b".into(), ..Row::default() });
    }

    #[test]
    fn says_what_is_wrong_without_a_secret() {
        for (text, problem) in [
            ("", "empty"),
            ("name\na", "column id"),
            ("id,id\na,b", "twice"),
            ("id,colour\na,red", "colour"),
            ("id,token\na", "line 2: 1 values"),
            ("id,token\na,secret\na,other", "line 3: the id"),
            ("id,token\na,secret\nb,secret", "line 3: its token"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("secret"), "{error}");
        }
    }
}
