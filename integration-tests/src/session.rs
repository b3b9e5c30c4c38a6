//! One test's ground: a person, their home, the programs, and the check of what was left behind.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::command::{Invocation, run};
use crate::leftovers::Leftovers;
use crate::processes::{adopt_orphans, descendants, kill};
use crate::programs::Programs;
use crate::user::User;

/// How the directories of tests are named.
pub(crate) const PREFIX: &str = "sarus-it.";

/// Who runs `sarus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A user without any preparation: rootless mode.
    User,
    /// Root: privileged mode.
    Root,
}

/// An OCI runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// runc
    Runc,
    /// crun
    Crun,
}

impl Runtime {
    /// As `--runtime` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

/// The ground of a test. When it is dropped, it fails the test if anything was left on the
/// machine, and removes what is its own.
#[derive(Debug)]
pub struct Session {
    directory: PathBuf,
    home: PathBuf,
    user: Option<User>,
    programs: Programs,
    leftovers: Leftovers,
}

impl Session {
    /// A person with an empty home.
    pub fn new(who: Who) -> Self {
        adopt_orphans();
        open_fuse();
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in("/var/tmp")
            .expect("a directory")
            .keep();
        let anyone = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(&directory, anyone).expect("it is ours");
        let home = directory.join("home");
        let user = match who {
            Who::User => Some(User::with_home(&home)),
            Who::Root => {
                fs_err::create_dir(&home).expect("a directory");
                None
            }
        };
        let programs = Programs::install(&directory.join("bin"));
        let leftovers = Leftovers::before(&directory, user.as_ref().map_or(0, User::uid));
        Self { directory, home, user, programs, leftovers }
    }

    /// The test's own directory, readable by all, writable by root.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The person's home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The programs under test.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The user; `None` for root.
    pub fn user(&mut self) -> Option<&mut User> {
        self.user.as_mut()
    }

    /// The person's user id.
    pub fn uid(&self) -> u32 {
        self.user.as_ref().map_or(0, User::uid)
    }

    /// The person's first group.
    pub fn gid(&self) -> u32 {
        self.user.as_ref().map_or(0, User::gid)
    }

    /// `sarus` with arguments, as the person.
    pub fn sarus(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        let mut words = vec![self.programs.path("sarus").into_os_string()];
        words.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self.program(words)
    }

    /// Any program, as the person: with a home, a path and nothing else.
    pub fn program(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Invocation {
        let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.programs.directory().display());
        let mut variables = BTreeMap::from([
            (OsString::from("HOME"), self.home.clone().into_os_string()),
            (OsString::from("PATH"), path.into()),
        ]);
        if let Some(pattern) = std::env::var_os("LLVM_PROFILE_FILE") {
            variables.insert("LLVM_PROFILE_FILE".into(), self.profile(Path::new(&pattern)));
        }
        let become_person = match &self.user {
            None => Vec::new(),
            Some(user) => {
                let (uid, gid) = (user.uid().to_string(), user.gid().to_string());
                let words = ["setpriv", "--reuid", &uid, "--regid", &gid, "--init-groups", "--"];
                words.iter().map(OsString::from).collect()
            }
        };
        Invocation {
            become_person,
            variables,
            wrapper: Vec::new(),
            arguments: words.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            directory: self.home.clone(),
            input: Vec::new(),
            keeps_input: false,
        }
    }

    /// Each user's instrumented programs write files of their own, beside the test's.
    fn profile(&self, pattern: &Path) -> OsString {
        let name = match self.uid() {
            0 => "root-%4m.profraw".to_owned(),
            uid => format!("user-{uid}-%2m.profraw"),
        };
        pattern.with_file_name(name).into_os_string()
    }

    /// Writes a file of the person's below their home, with the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let full = self.home.join(path);
        let mut made = Vec::new();
        let mut above = full.parent();
        while let Some(directory) = above.filter(|directory| !directory.exists()) {
            made.push(directory.to_owned());
            above = directory.parent();
        }
        for directory in made.iter().rev() {
            fs_err::create_dir(directory).expect("a directory");
        }
        fs_err::write(&full, content.as_ref()).expect("a file");
        made.push(full.clone());
        for path in &made {
            let ids = (Some(self.uid()), Some(self.gid()));
            std::os::unix::fs::chown(path, ids.0, ids.1).expect("we are root");
        }
        full
    }

    /// Where `sarus.json` and `hooks.d` are, as `sarus` sees them: the user's own, or for root the
    /// site's, which [`Session::configured`] shows.
    pub fn configuration(&self) -> PathBuf {
        match self.user {
            Some(_) => self.home.join(".config/sarus"),
            None => PathBuf::from("/etc/sarus"),
        }
    }

    /// Writes a file of [`Session::configuration`]; root's is seen under [`Session::configured`]
    /// only.
    pub fn configure(&self, name: &str, content: impl AsRef<[u8]>) {
        match self.user {
            Some(_) => self.write(&format!(".config/sarus/{name}"), content),
            None => self.write(&format!("../site/sarus/{name}"), content),
        };
    }

    /// [`Session::configure`] with one of the programs under test, which may be executed: where a
    /// privileged shim trusts it. Returns its path as `sarus` sees it.
    pub fn configure_program(&self, name: &str) -> PathBuf {
        let content = fs_err::read(self.programs.path(name)).expect("a program");
        self.configure(name, content);
        let written = match self.user {
            Some(_) => self.configuration(),
            None => self.directory.join("site/sarus"),
        };
        let anyone = std::fs::Permissions::from_mode(0o755);
        fs_err::set_permissions(written.join(name), anyone).expect("it is ours");
        self.configuration().join(name)
    }

    /// A command that sees what [`Session::configure`] wrote: for root in a mount namespace, so
    /// that no other test sees it.
    pub fn configured(&self, command: Invocation) -> Invocation {
        if self.user.is_some() {
            return command;
        }
        let site = self.directory.join("site");
        fs_err::create_dir_all(site.join("sarus")).expect("a directory");
        let script = r#"set -e
            mkdir -p "$0/etc"; mount -t tmpfs none "$0/etc"; mkdir "$0/etc/upper" "$0/etc/work"
            mount -t overlay -o "lowerdir=/etc,upperdir=$0/etc/upper,workdir=$0/etc/work" none /etc
            mkdir -p /etc/sarus; mount --bind "$0/sarus" /etc/sarus
            exec "$@""#;
        command.under([
            OsStr::new("unshare"),
            "--mount".as_ref(),
            "sh".as_ref(),
            "-c".as_ref(),
            script.as_ref(),
            site.as_os_str(),
        ])
    }

    /// Lets the person use registries on plain HTTP.
    pub fn trust(&self, hosts: &[&str]) {
        let entry = |host: &&str| format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n");
        let text: String = hosts.iter().map(entry).collect();
        self.write(".config/containers/registries.conf", text);
    }
}

/// `/dev/fuse` is open to all where udev runs; where nothing did that, the tests do.
fn open_fuse() {
    let path = Path::new("/dev/fuse");
    let mode = fs_err::metadata(path).expect("this machine has FUSE").permissions().mode();
    if mode & 0o666 != 0o666 {
        let all = std::fs::Permissions::from_mode(0o666);
        fs_err::set_permissions(path, all).expect("the tests run as root");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let found = if std::thread::panicking() { Vec::new() } else { self.leftovers.found() };
        for pid in descendants(std::process::id()) {
            kill(pid, Signal::KILL);
        }
        // What a killed run left mounted is in no other mount namespace than its own.
        run(std::process::Command::new("rm")
            .args(["-rf", "--one-file-system", "--"])
            .arg(&self.directory));
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}
