//! A temporary user of the machine, without any preparation by an administrator.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::run;

const NAME: &str = "sarus-it-";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A user who is removed with this value; files of theirs are the caller's to remove.
#[derive(Debug)]
pub struct User {
    name: String,
    uid: u32,
    gid: u32,
    extra_group: Option<(String, u32)>,
}

impl User {
    /// Makes a user with the home directory `home`, which is made too: no password, no
    /// subordinate ids.
    pub fn with_home(home: &Path) -> Self {
        remove_stale();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NAME}{}-{count}", std::process::id());
        locked(&format!(
            "useradd --create-home --no-log-init --skel /dev/null --home-dir '{}' --shell /bin/sh \
             -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 '{name}' && chmod 0755 '{0}'",
            home.display()
        ));
        let number = |option| {
            run(Command::new("id").args([option, name.as_str()])).trim().parse().expect("a number")
        };
        let (uid, gid) = (number("-u"), number("-g"));
        let known = fs_err::read_to_string("/etc/subuid").unwrap_or_default();
        let entry = format!("{name}:");
        assert!(!known.lines().any(|line| line.starts_with(&entry)), "subordinate ids for {name}");
        Self { name, uid, gid, extra_group: None }
    }

    /// Puts the user into a group of their own besides the first one; returns its id.
    pub fn join_group(&mut self) -> u32 {
        let group = format!("{}g", self.name);
        locked(&format!("groupadd '{group}' && usermod -a -G '{group}' '{}'", self.name));
        let line = run(Command::new("getent").args(["group", &group]));
        let id = line.split(':').nth(2).expect("an entry").parse().expect("a number");
        self.extra_group = Some((group, id));
        id
    }

    /// The login name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user's id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The id of the first group.
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let group = self
            .extra_group
            .as_ref()
            .map_or_else(String::new, |(group, _)| format!("; groupdel '{group}'"));
        locked(&format!("userdel --force '{}' 2> /dev/null{group}; true", self.name));
    }
}

/// Users of tests that were killed.
fn remove_stale() {
    let known = fs_err::read_to_string("/etc/passwd").expect("there is /etc/passwd");
    for name in known.lines().filter_map(|line| line.split(':').next()) {
        let pid = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
        if let Some(pid) = pid
            && !Path::new("/proc").join(pid).exists()
        {
            locked(&format!(
                "userdel --force '{name}' 2> /dev/null; groupdel '{name}g' 2> /dev/null; true"
            ));
        }
    }
}

/// Runs a script while no other test changes the users' database.
fn locked(script: &str) {
    run(Command::new("flock").args(["/etc", "sh", "-c", script]));
}
