//! The configuration file and the environment, merged into one flat map of known keys.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use config::{Environment, File, FileFormat, Source as _, Value, ValueKind};

use super::{ConfigError, keys};

/// The file that is read when nobody names one.
pub const DEFAULT_FILE: &str = "broker.toml";
/// Environment variables are `FUOTAD__SECTION__KEY`.
const PREFIX: &str = "FUOTAD";
const SEPARATOR: &str = "__";

/// A value as it was written, before a key says what it must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A string; from the environment everything is one.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number that is not whole.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    List(Vec<Raw>),
    /// A table in a list. It may hold a secret: only `{:#}` shows what is in it.
    Table(BTreeMap<String, Raw>),
}

impl Raw {
    /// As JSON has it; what is in a table stays out.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Raw::Text(text) => text.as_str().into(),
            Raw::Integer(number) => (*number).into(),
            Raw::Float(number) => (*number).into(),
            Raw::Bool(value) => (*value).into(),
            Raw::List(items) => items.iter().map(Raw::json).collect(),
            Raw::Table(_) => self.to_string().into(),
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Debug escapes line breaks: a message stays one line.
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Float(number) => write!(f, "{number}"),
            Raw::Bool(value) => write!(f, "{value}"),
            Raw::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    fmt::Display::fmt(item, f)?;
                }
                f.write_str("]")
            }
            Raw::Table(members) if f.alternate() => write!(f, "{members:?}"),
            Raw::Table(_) => f.write_str("{…}"),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File,
    /// An environment variable.
    Environment,
}

/// What somebody set.
#[derive(Debug)]
pub struct Entry {
    /// The value.
    pub raw: Raw,
    /// Where it stands.
    pub origin: Origin,
}

/// All that is set, by key name. Names that are no keys became problems.
#[derive(Debug)]
pub struct Tree {
    /// What is set.
    pub entries: BTreeMap<&'static str, Entry>,
    /// The file that was read, as an absolute path; `None` where the default one is missing.
    pub file: Option<PathBuf>,
    /// The directory that relative paths are relative to.
    pub base_dir: PathBuf,
    /// Unknown names and values in wrong places, a sentence each.
    pub problems: Vec<String>,
}

impl Tree {
    /// Reads the file (`broker.toml` in the working directory where `path` is `None`) and lays
    /// the environment over it.
    ///
    /// # Errors
    /// The file is missing although it was named, is unreadable, or is not TOML. Unknown keys
    /// are no error here but [`Tree::problems`].
    pub fn load(
        path: Option<&Path>,
        environment: HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_FILE));
        let shown = path.display();
        let path = std::path::absolute(path).map_err(|error| {
            ConfigError::one(format!("cannot find the working directory: {error}"))
        })?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound && !named => None,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ConfigError::one(format!(
                    "{shown}: there is no such configuration file"
                )));
            }
            Err(error) => {
                return Err(ConfigError::one(format!(
                    "{shown}: the configuration file cannot be read: {error}"
                )));
            }
        };
        let base_dir = path.parent().unwrap_or(Path::new("/")).to_path_buf();

        let file_source = File::from_str(text.as_deref().unwrap_or_default(), FileFormat::Toml);
        let file_values = file_source.collect().map_err(|error| {
            ConfigError::one(format!("{shown}: {}", one_line(&error.to_string())))
        })?;
        let merged = config::Config::builder()
            .add_source(file_source)
            .add_source(
                Environment::with_prefix(PREFIX)
                    .prefix_separator(SEPARATOR)
                    .separator(SEPARATOR)
                    .source(Some(environment)),
            )
            .build()
            .map_err(|error| ConfigError::one(one_line(&error.to_string())))?;
        let merged =
            merged.collect().map_err(|error| ConfigError::one(one_line(&error.to_string())))?;

        let mut tree = Tree {
            entries: BTreeMap::new(),
            file: text.is_some().then_some(path),
            base_dir,
            problems: Vec::new(),
        };
        // A scalar in place of a table would be replaced by the environment's table unseen.
        for (name, value) in &file_values {
            if keys::is_section(name) && !matches!(value.kind, ValueKind::Table(_)) {
                tree.not_a_section(name, Origin::File);
            }
        }
        let mut names: Vec<_> = merged.into_iter().collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in names {
            tree.flatten(name, value);
        }
        Ok(tree)
    }

    /// Where this entry of that key was written: the file's name, or the variable's.
    pub fn place(&self, name: &str, origin: Origin) -> String {
        match origin {
            Origin::Environment => {
                format!("{PREFIX}{SEPARATOR}{}", name.to_uppercase().replace('.', SEPARATOR))
            }
            Origin::File => self.file.as_ref().and_then(|file| file.file_name()).map_or_else(
                || DEFAULT_FILE.to_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
        }
    }

    fn not_a_section(&mut self, name: &str, origin: Origin) {
        let problem = format!(
            "{}: {name} is a section, so it takes keys and not a value",
            self.place(name, origin)
        );
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn flatten(&mut self, name: String, value: Value) {
        let origin = if value.origin().is_some() { Origin::Environment } else { Origin::File };
        match value.kind {
            ValueKind::Table(table) if keys::is_section(&name) => {
                let mut children: Vec<_> = table.into_iter().collect();
                children.sort_by(|a, b| a.0.cmp(&b.0));
                for (child, value) in children {
                    self.flatten(format!("{name}.{child}"), value);
                }
            }
            ValueKind::Table(table) if !table.is_empty() && keys::find(&name).is_none() => {
                // An unknown section: name what stands in it, that is what was meant.
                for (child, value) in table {
                    self.flatten(format!("{name}.{child}"), value);
                }
            }
            kind => match (keys::find(&name), raw(kind)) {
                (Some(key), Ok(Some(raw))) => {
                    self.entries.insert(key.name, Entry { raw, origin });
                }
                (Some(_), Ok(None)) => {}
                (Some(key), Err(())) => {
                    let place = self.place(&name, origin);
                    self.problems.push(format!("{place}: {} takes a value, not a table", key.name));
                }
                (None, _) if keys::is_section(&name) => {
                    self.not_a_section(&name, origin);
                }
                (None, _) => {
                    let place = self.place(&name, origin);
                    let hint = keys::suggest(&name)
                        .map_or_else(String::new, |known| format!("; did you mean {known}?"));
                    self.problems
                        .push(format!("{place}: unknown key {}{hint}", name.escape_debug()));
                }
            },
        }
    }
}

/// `Err` for a table, `Ok(None)` for nothing at all.
fn raw(kind: ValueKind) -> Result<Option<Raw>, ()> {
    Ok(Some(match kind {
        ValueKind::Nil => return Ok(None),
        ValueKind::Boolean(value) => Raw::Bool(value),
        ValueKind::I64(number) => Raw::Integer(number),
        // The remaining integers come from no source that is used here.
        ValueKind::I128(number) => Raw::Text(number.to_string()),
        ValueKind::U64(number) => Raw::Text(number.to_string()),
        ValueKind::U128(number) => Raw::Text(number.to_string()),
        ValueKind::Float(number) => Raw::Float(number),
        ValueKind::String(text) => Raw::Text(text),
        ValueKind::Array(items) => {
            let items: Result<Vec<_>, ()> =
                items.into_iter().map(|item| item_of(item.kind)).collect();
            Raw::List(items?.into_iter().flatten().collect())
        }
        ValueKind::Table(_) => return Err(()),
    }))
}

/// An item of a list, which may be a table.
fn item_of(kind: ValueKind) -> Result<Option<Raw>, ()> {
    let ValueKind::Table(table) = kind else { return raw(kind) };
    let members = table.into_iter().map(|(name, value)| Ok((name, raw(value.kind)?)));
    let members: Result<Vec<_>, ()> = members.collect();
    let members = members?.into_iter().filter_map(|(name, value)| Some((name, value?)));
    Ok(Some(Raw::Table(members.collect())))
}

/// A parser's message without its excerpt of the file, which may hold a secret.
fn one_line(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("it cannot be read").trim_end_matches(':').to_owned();
    match lines.next_back() {
        Some(last) => format!("{first}: {last}"),
        None => first,
    }
}
