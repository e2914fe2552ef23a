//! Panics as log lines, so that a log that is JSON stays JSON.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::PanicHookInfo,
    thread,
};

use tracing::{debug, error};

/// Threads of the embedded router. A panic is the only way to end one, so it is no news; where
/// one ends by itself, the broker replaces it and says so.
const ROUTER_THREADS: &str = "router-";

/// From now on a panic is logged instead of printed. It still unwinds its task or thread.
pub fn log() {
    std::panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        if thread.starts_with(ROUTER_THREADS) {
            debug!(thread, "a thread of the embedded router ended");
            return;
        }
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        error!(thread, place = place(info), backtrace, "panicked: {}", message(info));
    }));
}

/// File and line, without the directories of the machine that it was built on.
fn place(info: &PanicHookInfo<'_>) -> String {
    info.location().map_or_else(String::new, |location| {
        let parts: Vec<&str> = location.file().split('/').collect();
        let end = parts[parts.len().saturating_sub(3)..].join("/");
        format!("{end}:{}", location.line())
    })
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    info.payload_as_str().unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    /// The hook belongs to the whole process, so this looks at its parts alone.
    #[test]
    fn a_place_names_no_machine() {
        let (sender, places) = mpsc::channel();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = sender.send((super::place(info), super::message(info).to_owned()));
        }));
        let result = std::thread::spawn(|| panic!("on purpose")).join();
        std::panic::set_hook(before);
        assert!(result.is_err());
        // Other tests may panic at the same time: they fail anyway.
        let (place, message) = places.iter().find(|(_, message)| message == "on purpose").unwrap();
        assert!(place.starts_with("daemon/src/panics.rs:"), "{place}");
        assert_eq!(message, "on purpose");
    }
}
