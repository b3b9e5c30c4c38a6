//! What was put into the container, by whom and why: written down as it is done, so that
//! `sarus run --explain` shows what a run does and not what somebody remembered of it.

use std::cell::RefCell;
use std::path::Path;

use sarus_launch::Origin;
use serde_json::{Value, json};

/// Entries in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Ledger(RefCell<Vec<Entry>>);

/// One mount or device.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where it is in the container.
    pub(crate) destination: String,
    /// The path on the host, or the kind of file system.
    pub(crate) source: String,
    /// A device node.
    pub(crate) is_device: bool,
    pub(crate) read_only: bool,
    pub(crate) origin: Origin,
    pub(crate) reason: String,
    /// Something of the image was there.
    pub(crate) replaces: bool,
}

impl Entry {
    /// Something of the engine's own.
    pub(crate) fn own(destination: &str, source: &str, reason: &str) -> Self {
        Self {
            destination: destination.to_owned(),
            source: source.to_owned(),
            is_device: false,
            read_only: false,
            origin: Origin::Engine,
            reason: reason.to_owned(),
            replaces: false,
        }
    }

    /// Something that was asked for.
    pub(crate) fn asked(
        destination: &Path,
        source: &Path,
        (origin, reason): (Origin, &str),
    ) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self { origin, ..Self::own(&text(destination), &text(source), reason) }
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "destination": self.destination,
            "source": self.source,
            "readOnly": self.read_only,
            "origin": self.origin,
            "reason": self.reason,
        });
        if self.replaces {
            entry["replaces"] = json!(true);
        }
        entry
    }
}

impl Ledger {
    /// Writes an entry.
    pub(crate) fn note(&self, entry: Entry) {
        self.0.borrow_mut().push(entry);
    }

    /// The mounts, or the devices, as JSON.
    pub(crate) fn list(&self, devices: bool) -> Value {
        let entries = self.0.borrow();
        let chosen = entries.iter().filter(|entry| entry.is_device == devices);
        chosen.map(Entry::to_json).collect()
    }
}
