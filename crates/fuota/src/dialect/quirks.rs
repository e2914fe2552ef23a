//! How often each thing that a dialect tolerates was met since the start.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Dialect;

/// What is counted for every dialect: a connection that had begun in another one acted in it.
pub const SECOND_DIALECT: &str = "second_dialect";

/// One counter for each name of each dialect.
pub struct Quirks(Box<[Quirk]>);

struct Quirk {
    dialect: &'static str,
    name: &'static str,
    met: AtomicU64,
}

impl Quirks {
    /// All at zero.
    pub fn new(dialects: &[Arc<dyn Dialect>]) -> Quirks {
        let of = |dialect: &Arc<dyn Dialect>| {
            let name = dialect.name();
            let own = dialect.quirks().iter().copied().chain([SECOND_DIALECT]);
            own.map(move |quirk| Quirk { dialect: name, name: quirk, met: AtomicU64::new(0) })
        };
        Quirks(dialects.iter().flat_map(of).collect())
    }

    /// Counts one.
    pub fn count(&self, dialect: &str, name: &str) {
        let found = self.0.iter().find(|quirk| quirk.dialect == dialect && quirk.name == name);
        debug_assert!(found.is_some(), "{dialect} lists no quirk {name}");
        if let Some(quirk) = found {
            quirk.met.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Dialect, name and how often.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.0.iter().map(|quirk| (quirk.dialect, quirk.name, quirk.met.load(Ordering::Relaxed)))
    }
}
