//! The configuration's changes to every container's variables.

use std::collections::{BTreeMap, BTreeSet};

/// Applied in the order `unset`, `set`, `prepend`, `append`, over the host's and the image's
/// variables and below what the user gives with `-e`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// Variables that get this value.
    pub set: BTreeMap<String, String>,
    /// Put before the variable's value, with a colon between; alone where there is none.
    pub prepend: BTreeMap<String, String>,
    /// Put after the variable's value, with a colon between; alone where there is none.
    pub append: BTreeMap<String, String>,
    /// Variables that are removed.
    pub unset: BTreeSet<String>,
}

impl Environment {
    /// Lays a user's changes over the site's, as if they were made one after the other.
    pub(crate) fn overlay(&mut self, user: Self) {
        for name in &user.unset {
            self.set.remove(name);
            self.prepend.remove(name);
            self.append.remove(name);
        }
        self.unset.extend(user.unset);
        for (name, value) in user.set {
            self.prepend.remove(&name);
            self.append.remove(&name);
            self.set.insert(name, value);
        }
        for (name, value) in user.prepend {
            let whole = self.prepend.remove(&name).map_or(value.clone(), |o| value + ":" + &o);
            self.prepend.insert(name, whole);
        }
        for (name, value) in user.append {
            let whole = self.append.remove(&name).map_or(value.clone(), |o| o + ":" + &value);
            self.append.insert(name, whole);
        }
    }
}
