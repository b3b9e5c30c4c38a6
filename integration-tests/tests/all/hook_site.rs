//! A site with hooks: the user's own files rootless, root's where nobody else can write otherwise.

use std::path::{Path, PathBuf};

use sarus_integration_tests::{Invocation, Who};
use serde_json::{Value, json};

use crate::Ground;

/// Where root's programs and files of hooks are, in a mount namespace of the run's own.
const SITE: &str = "/srv";

/// Puts the hooks of `$HOOKS` (a file each) and the files below `$FILES` in place. Arguments: the
/// directory of the built programs.
const PREPARE: &str = r#"set -e
    mount -t tmpfs -o mode=0755 none /srv
    mkdir /srv/upper /srv/work /srv/hooks.d
    cp "$0"/sarus-hook-* /srv/
    [ -z "$FILES" ] || cp -a "$FILES" /srv/files
    chown -R root:root /srv
    mount -t overlay -o lowerdir=/etc,upperdir=/srv/upper,workdir=/srv/work none /etc
    mkdir -p /etc/sarus; echo '{"hooksDir": "/srv/hooks.d"}' > /etc/sarus/sarus.json
    cp "$HOOKS"/*.json /srv/hooks.d/; chown root:root /srv/hooks.d/*
    unset HOOKS FILES
    exec "$@""#;

/// A site's hooks and the files that their settings name.
pub(crate) struct HookSite<'g> {
    ground: &'g Ground,
    privileged: bool,
}

impl<'g> HookSite<'g> {
    /// For the person of the ground's session.
    pub(crate) fn new(ground: &'g Ground, who: Who) -> Self {
        Self { ground, privileged: who == Who::Root }
    }

    /// Where `NAME` is when hooks run: a program `sarus-hook-*`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        if self.privileged {
            Path::new(SITE).join(name)
        } else {
            self.ground.session.programs().path(name)
        }
    }

    /// Where a file of [`HookSite::file`] is when hooks run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let files =
            if self.privileged { Path::new(SITE).join("files") } else { self.written().to_owned() };
        files.join(name)
    }

    fn written(&self) -> PathBuf {
        self.ground.session.home().join("site")
    }

    /// A file of the site's; returns where it is now.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.ground.session.write(&format!("site/{name}"), content)
    }

    /// A hook file named `NN-test.json`, in the order given. `hook` is its member of that name,
    /// whose `path` is the name of a program.
    pub(crate) fn hook(&self, number: usize, mut hook: Value, when: &Value, stages: &[&str]) {
        let program = self.program(hook["path"].as_str().unwrap());
        hook["path"] = json!(program);
        let file = json!({"version": "1.0.0", "hook": hook, "when": when, "stages": stages});
        let name = format!(".config/sarus/hooks.d/{number:02}-test.json");
        self.ground.session.write(&name, file.to_string());
    }

    /// The run, with the hooks that were written.
    pub(crate) fn with(&self, run: Invocation) -> Invocation {
        let hooks = self.ground.session.home().join(".config/sarus/hooks.d");
        if !self.privileged {
            let config = json!({"hooksDir": [hooks]});
            self.ground.session.write(".config/sarus/sarus.json", config.to_string());
            return run;
        }
        let programs = self.ground.session.programs().directory().to_str().unwrap();
        let files = if self.written().exists() { self.written() } else { PathBuf::new() };
        run.under(["unshare", "--mount", "sh", "-c", PREPARE, programs])
            .env("HOOKS", hooks)
            .env("FILES", files)
    }
}
