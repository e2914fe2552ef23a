//! What can be wrong with a configuration.

use std::fmt;

/// Everything that is wrong, one sentence each. `Display` is always a single line: the first
/// problem, and how many more there are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<String>,
}

impl ConfigError {
    /// One problem.
    pub fn one(problem: impl Into<String>) -> Self {
        ConfigError { problems: vec![problem.into()] }
    }

    /// `Ok` where there are none.
    pub fn check(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// All of them, in the order of the keys.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.problems.first().map_or("", String::as_str);
        f.write_str(first)?;
        match self.problems.len() {
            0 | 1 => Ok(()),
            n => write!(f, " (and {} more: `fuotad check-config` lists all)", n - 1),
        }
    }
}
