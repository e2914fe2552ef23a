//! What commands print.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// Prints text. That nobody reads on (`fuotad device list | head`) is no error.
pub fn text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("the output cannot be written")
        }
        _ => Ok(()),
    }
}

/// Prints JSON for programs, indented for people.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&format!("{}\n", escaped(&serde_json::to_string_pretty(value)?)))
}

/// The same JSON, without what [`safe`] replaces: it can only stand in strings, and JSON itself
/// escapes nothing above U+001F.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' => text.push(c),
            c if is_unsafe(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

/// The text with everything replaced that would move a terminal's cursor or hide what stands
/// there: names come from clients.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect()
}

/// Controls, and what turns the direction of writing; none is beyond U+FFFF.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(safe("a\x1b[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
        assert_eq!(safe("größe-1"), "größe-1");
    }

    #[test]
    fn json_is_the_same_and_harmless() {
        let value = serde_json::json!({ "payload": "\u{9b}2J\u{202e}\u{1b}\u{7f} größe\n" });
        let printed = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!printed.chars().any(|c| c != '\n' && is_unsafe(c)), "{printed:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
