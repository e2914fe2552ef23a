//! `FILE.status.json` beside each dropped file (rule 9): written when what became of it changes,
//! removed with it.
//!
//! | state | guarded by | bounded by |
//! | --- | --- | --- |
//! | what is to be written | a mutex, held while the catalog is compared | the files that were dropped; a newer word replaces an older one |

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;
use store::{Digest, FirmwareStore};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::Engine,
    views::{FirmwareState, FirmwareView},
};

/// What is beside the files, and what is to be.
#[derive(Default)]
pub struct StatusFiles {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// What was last said of each path.
    said: HashMap<String, Digest>,
    /// `None`: the file is to be removed.
    waiting: BTreeMap<String, Option<Vec<u8>>>,
}

impl StatusFiles {
    /// Knows of files that an earlier run wrote beside these paths.
    pub fn new(paths: impl Iterator<Item = String>) -> StatusFiles {
        let said = paths.map(|path| (path, Digest::from_bytes([0; 32]))).collect();
        let state = Mutex::new(State { said, ..State::default() });
        StatusFiles { state, bell: Notify::new() }
    }

    /// Says what became of all files.
    fn tell<'a>(&self, views: impl Iterator<Item = &'a FirmwareView>) {
        let mut state = self.state.lock();
        let State { said, waiting } = &mut *state;
        let mut before = std::mem::take(said);
        for view in views {
            let text = text(view);
            let digest = Digest::of(&text);
            if before.remove(&view.path) != Some(digest) {
                waiting.insert(view.path.clone(), Some(text));
            }
            said.insert(view.path.clone(), digest);
        }
        waiting.extend(before.into_keys().map(|path| (path, None)));
        let any = !waiting.is_empty();
        drop(state);
        if any {
            self.bell.notify_one();
        }
    }

    /// Writes what is to be written, until cancelled.
    pub async fn run(self: Arc<Self>, store: Arc<FirmwareStore>, cancel: CancellationToken) {
        let work = async {
            loop {
                self.bell.notified().await;
                // One after the other: the disk has other things to do.
                while let Some((path, text)) = self.next() {
                    store.publish_status(path, text).await;
                }
            }
        };
        cancel.run_until_cancelled(work).await;
    }

    fn next(&self) -> Option<(String, Option<Vec<u8>>)> {
        self.state.lock().waiting.pop_first()
    }
}

impl Engine {
    /// Compares the catalog with what stands beside the files. Before the first scan nothing is
    /// said: what is not there yet may only not be mounted.
    pub fn tell_status_files(&self) {
        if !self.is_ready() {
            return;
        }
        let catalog = self.catalog.load();
        let dropped = |view: &&FirmwareView| {
            let is_file = view.target.is_some() || view.state == FirmwareState::Refused;
            is_file && view.state != FirmwareState::Replaced
        };
        self.status_files.tell(catalog.views().iter().filter(dropped));
    }
}

/// The view of REST, without what changes with each deployment.
fn text(view: &FirmwareView) -> Vec<u8> {
    let mut value = serde_json::to_value(view).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        for name in ["id", "deployments", "created"] {
            fields.remove(name);
        }
        fields.retain(|_, value| !value.is_null());
    }
    let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
    text.push(b'\n');
    text
}
