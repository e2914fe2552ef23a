//! From what was written to what a key needs, with an error that names the key.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    keys,
    secret::Secret,
    tree::{Raw, Tree},
};

/// Reads typed values, key by key, and collects what is wrong. A value that is wrong reads as
/// its default, so that one look finds all problems.
pub struct Reader<'a> {
    tree: &'a Tree,
    /// A sentence for each problem so far.
    pub problems: Vec<String>,
    /// The keys whose value could not be read.
    wrong: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// A reader over what is set.
    pub fn new(tree: &'a Tree) -> Self {
        Reader { tree, problems: Vec::new(), wrong: Vec::new() }
    }

    /// A whole number within bounds.
    pub fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(name, &expected, |raw| {
            integer(raw)
                .filter(|number| range.contains(number))
                .and_then(|number| T::try_from(number).ok())
        })
    }

    /// As [`Reader::number`], but `"off"`, 0 and nothing are no bound.
    pub fn number_or_off<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        match self.tree.entries.get(name) {
            Some(entry) if is_off(&entry.raw) => None,
            _ => self.number(name, range),
        }
    }

    /// A number of bytes within bounds.
    pub fn size<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let expected = format!(
            "a size such as 4096, \"64 KiB\" or \"512 MB\", from {} to {} bytes",
            range.start(),
            range.end()
        );
        self.value(name, &expected, |raw| {
            let bytes = match raw {
                Raw::Text(text) => size(text)?,
                other => integer(other)?,
            };
            if range.contains(&bytes) { T::try_from(bytes).ok() } else { None }
        })
    }

    /// A span of time; `smallest` keeps values out that would make a busy loop.
    pub fn duration(&mut self, name: &'static str, smallest: Duration) -> Option<Duration> {
        let expected = format!(
            "a duration with its unit, such as \"2s\" or \"10min\", from {} to 366days",
            humantime::format_duration(smallest)
        );
        let largest = Duration::from_secs(366 * 24 * 3600);
        self.value(name, &expected, |raw| match raw {
            Raw::Text(text) => humantime::parse_duration(text)
                .ok()
                .filter(|duration| (smallest..=largest).contains(duration)),
            _ => None,
        })
    }

    /// A switch; nothing set is the default, a wrong value is off.
    pub fn switch(&mut self, name: &'static str) -> bool {
        self.value(name, "true or false", |raw| match raw {
            Raw::Bool(value) => Some(*value),
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        })
        .unwrap_or(false)
    }

    /// One address or a list of them, at least one.
    pub fn listen(&mut self, name: &'static str) -> Vec<SocketAddr> {
        let expected = "an address with a port, such as \"127.0.0.1:1883\" or \"[::1]:1883\", or a list of them";
        self.value(name, expected, |raw| {
            let items = texts(raw, ',')?;
            let addresses: Option<Vec<SocketAddr>> =
                items.iter().map(|text| text.parse().ok()).collect();
            addresses.filter(|addresses| !addresses.is_empty())
        })
        .unwrap_or_default()
    }

    /// As [`Reader::listen`], but `"off"` is none.
    pub fn listen_or_off(&mut self, name: &'static str) -> Vec<SocketAddr> {
        match self.tree.entries.get(name) {
            Some(entry) if is_text(&entry.raw, "off") => Vec::new(),
            _ => self.listen(name),
        }
    }

    /// A text with commas between, or a list of texts; empty by default.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.value(name, "a text or a list of texts", |raw| texts(raw, ',')).unwrap_or_default()
    }

    /// A text of lines, or a list of them; empty by default.
    pub fn lines(&mut self, name: &'static str) -> Vec<String> {
        self.value(name, "a line or a list of lines", |raw| texts(raw, '\n')).unwrap_or_default()
    }

    /// A text; an empty one counts as not set.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.value(name, "a text", |raw| match raw {
            Raw::Text(text) => Some(text.clone()),
            _ => None,
        })
        .filter(|text| !text.is_empty())
    }

    /// One of several words.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let expected =
            words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        self.value(name, &expected, |raw| {
            words.iter().find(|(word, _)| is_text(raw, word)).map(|(_, meaning)| *meaning)
        })
    }

    /// A path, absolute or relative to the configuration file.
    pub fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        let text = self.text(name)?;
        Some(self.tree.base_dir.join(text))
    }

    /// A secret: the key itself, or the content of the file that `KEY_file` names.
    pub fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let file_key = keys::find(&format!("{name}_file"))?.name;
        let inline = self.text(name);
        let path = self.path(file_key);
        match (inline, path) {
            (Some(_), Some(_)) => {
                self.problems.push(format!("{name} and {file_key} are both set; keep one of them"));
                None
            }
            (Some(text), None) => Some(Secret::new(text)),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim().to_owned())),
                Ok(_) => {
                    self.problems.push(format!("{file_key}: {} is empty", path.display()));
                    None
                }
                Err(error) => {
                    self.problems
                        .push(format!("{file_key}: {} cannot be read: {error}", path.display()));
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// The tables of a list; empty by default.
    pub fn tables(&mut self, name: &'static str) -> Vec<BTreeMap<String, Raw>> {
        let tables = |raw: &Raw| {
            let Raw::List(items) = raw else { return None };
            let table = |item: &Raw| match item {
                Raw::Table(members) => Some(members.clone()),
                _ => None,
            };
            items.iter().map(table).collect::<Option<Vec<_>>>()
        };
        // What stands in the place of a table may be the secret of one.
        let expected = "a list of tables, [[…]] in the file";
        self.parsed(name, expected, false, tables).unwrap_or_default()
    }

    /// Where relative paths begin.
    pub fn base_dir(&self) -> &Path {
        &self.tree.base_dir
    }

    /// Notes a problem of a key whose type is right.
    pub fn problem(&mut self, name: &str, sentence: &str) {
        let place = self.tree.entries.get(name).map(|entry| self.tree.place(name, entry.origin));
        self.problems.push(match place {
            Some(place) => format!("{place}: {name} {sentence}"),
            None => format!("{name} {sentence}"),
        });
    }

    /// Whether what is set for one of these keys could not be read: what follows from it is no
    /// problem of its own.
    pub fn is_wrong(&self, names: &[&str]) -> bool {
        self.wrong.iter().any(|name| names.contains(name))
    }

    /// What is set, or the default of the table where that is wrong or nothing is; `None` where there
    /// is no default either.
    fn value<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl Fn(&Raw) -> Option<T>,
    ) -> Option<T> {
        self.parsed(name, expected, true, parse)
    }

    /// As [`Reader::value`]; `quoted` is whether a problem may show what was given.
    fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        quoted: bool,
        parse: impl Fn(&Raw) -> Option<T>,
    ) -> Option<T> {
        let key = keys::find(name)?;
        let default = || match key.default {
            "" => None,
            default => parse(&Raw::Text(default.to_owned())),
        };
        let Some(entry) = self.tree.entries.get(name) else { return default() };
        let value = parse(&entry.raw);
        let unset = is_text(&entry.raw, "") && key.default.is_empty();
        if value.is_none() && !unset {
            let place = self.tree.place(name, entry.origin);
            let found = match quoted && !key.secret {
                true => entry.raw.to_string(),
                false => "the given value".to_owned(),
            };
            self.problems.push(format!("{place}: {name} must be {expected}, not {found}"));
            self.wrong.push(name);
            return default();
        }
        value
    }
}

fn is_text(raw: &Raw, expected: &str) -> bool {
    matches!(raw, Raw::Text(text) if text == expected)
}

/// The ways to write that something is not wanted.
fn is_off(raw: &Raw) -> bool {
    match raw {
        Raw::Bool(value) => !value,
        Raw::Integer(number) => *number == 0,
        Raw::Float(_) => false,
        Raw::Text(text) => matches!(text.as_str(), "" | "off" | "false" | "none" | "0"),
        Raw::List(items) => items.is_empty(),
        Raw::Table(_) => false,
    }
}

fn integer(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Integer(number) => u64::try_from(*number).ok(),
        // From the environment everything is a text.
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A list, or one text that is split into one, since the environment knows no lists.
fn texts(raw: &Raw, separator: char) -> Option<Vec<String>> {
    match raw {
        Raw::Text(text) => {
            let parts = text.split(separator).map(|part| part.trim().to_owned());
            Some(parts.filter(|part| !part.is_empty()).collect())
        }
        Raw::List(items) => {
            let item = |item: &Raw| match item {
                Raw::Text(text) => Some(text.trim().to_owned()),
                _ => None,
            };
            items.iter().map(item).collect()
        }
        _ => None,
    }
}

/// `512 MB` is 512,000,000 bytes and `512 MiB` is 536,870,912; letters' case does not matter.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("512 MB", Some(512_000_000)),
            ("512MiB", Some(512 << 20)),
            (" 8 kib ", Some(8192)),
            ("1 gb", Some(1_000_000_000)),
            ("", None),
            ("MB", None),
            ("1.5 MB", None),
            ("-1", None),
            ("12 parsecs", None),
            ("99999999999999999999", None),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }
}
