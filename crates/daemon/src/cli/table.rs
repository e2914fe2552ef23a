//! Columns for people.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::output::safe;

/// A table: one header, rows of the same width.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With its header.
    pub fn new(header: &[&str]) -> Self {
        Table { rows: vec![header.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub fn row(&mut self, cells: &[String]) {
        let cell = |cell: &String| if cell.is_empty() { "-".to_owned() } else { safe(cell) };
        self.rows.push(cells.iter().map(cell).collect());
    }

    /// The text, two spaces between columns.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What stands at the path (`progress/chunks_sent`), as text; empty where nothing does.
pub fn field(value: &Value, path: &str) -> String {
    value.pointer(&format!("/{path}")).map(text).unwrap_or_default()
}

/// The time that stands at the path, in seconds since 1970, as people read it; empty where there
/// is none.
pub fn time(value: &Value, path: &str) -> String {
    let seconds = value.pointer(&format!("/{path}")).and_then(Value::as_u64);
    // The year 9999 is as far as the form goes.
    let seconds = seconds.filter(|seconds| *seconds <= 253_402_300_799);
    let at = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    at.map(|at| humantime::format_rfc3339_seconds(at).to_string()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", "STATE"]);
        table.row(&["pump-1".into(), String::new()]);
        table.row(&["ü".into(), "ok".into()]);
        assert_eq!(table.render(), "ID      STATE\npump-1  -\nü       ok\n");
    }

    #[test]
    fn fields() {
        let value = json!({"a": {"b": 5}, "c": true, "d": null, "e": ["x", "y"]});
        assert_eq!(field(&value, "a/b"), "5");
        assert_eq!(field(&value, "c"), "yes");
        assert_eq!(field(&value, "d"), "");
        assert_eq!(field(&value, "e"), "x,y");
        assert_eq!(field(&value, "f"), "");
    }
}
