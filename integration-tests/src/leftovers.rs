//! What is on the machine beside the test's own directory: mounts, loop devices, files, cgroups,
//! processes. Taken before a test and compared after it.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::processes::{describe, wait_alone};

/// Servers that end by themselves when their last user is gone get this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// As a picture has it.
const ROOTS_MEETING_PLACE: &str = "file /run/sarus-0";

/// A picture of the machine.
#[derive(Debug)]
pub struct Leftovers {
    /// The test's own directory: what refers to it counts, what is in it does not.
    directory: PathBuf,
    /// Whose files are counted, besides those with a name that says whose they are.
    uid: u32,
    seen: BTreeSet<String>,
}

impl Leftovers {
    /// Takes the picture before anything ran.
    pub fn before(directory: &Path, uid: u32) -> Self {
        let mut leftovers = Self { directory: directory.to_owned(), uid, seen: BTreeSet::new() };
        leftovers.seen = leftovers.picture();
        leftovers
    }

    /// What is there now and was not before, a line each. Waits for processes that are about to
    /// end.
    pub fn found(&self) -> Vec<String> {
        let processes = wait_alone(PATIENCE);
        let new = self.new_files();
        processes.iter().map(|pid| format!("process {}", describe(*pid))).chain(new).collect()
    }

    /// What is new. The directory that root's runs meet in is everybody's who is root: while it is
    /// all that is new, it may be another test's, which ends.
    #[expect(clippy::disallowed_methods, reason = "nothing of this test's own is waited for")]
    fn new_files(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let new = self.picture().difference(&self.seen).cloned().collect::<Vec<_>>();
            if new != [ROOTS_MEETING_PLACE] || Instant::now() > end {
                return new;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn picture(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        seen.extend(self.mounts());
        seen.extend(self.loop_devices());
        for directory in ["/tmp", "/var/tmp", "/dev/shm", "/run", "/run/user", "/run/lock"] {
            seen.extend(self.files(Path::new(directory)));
        }
        if self.uid == 0 {
            // The runtimes' own state.
            let state = ["/run/runc", "/run/crun"].into_iter().map(Path::new).flat_map(entries);
            seen.extend(state.map(|path| format!("file {}", path.display())));
            seen.extend(cgroups(Path::new("/sys/fs/cgroup"), 4));
        }
        seen
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs_err::read_to_string("/proc/self/mountinfo").expect("there is /proc");
        let directory = self.directory.to_str().expect("a directory of ours");
        let others = |line: &str| line.contains(crate::session::PREFIX);
        let ours =
            |line: &&str| line.contains(directory) || (line.contains("sarus") && !others(line));
        table.lines().filter(ours).map(|line| format!("mount {line}")).collect()
    }

    fn loop_devices(&self) -> Vec<String> {
        let backing = |path: PathBuf| {
            let file = fs_err::read_to_string(path.join("loop/backing_file")).ok()?;
            let ours = file.contains(self.directory.to_str()?);
            ours.then(|| format!("loop device {} of {}", path.display(), file.trim()))
        };
        entries(Path::new("/sys/block")).filter_map(backing).collect()
    }

    fn files(&self, directory: &Path) -> Vec<String> {
        let is_ours = |path: &PathBuf| {
            let by_name = path.to_str().is_some_and(|name| name.contains("sarus"));
            let tests = path.to_str().is_some_and(|name| name.contains(crate::session::PREFIX));
            let owner = path.symlink_metadata().map(|data| data.uid());
            // Root has files everywhere; a test's user has none that the test did not make.
            owner.is_ok_and(|owner| owner == self.uid) && !tests && (by_name || self.uid != 0)
        };
        entries(directory).filter(is_ours).map(|path| format!("file {}", path.display())).collect()
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs_err::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

fn cgroups(directory: &Path, depth: usize) -> Vec<String> {
    let below = entries(directory).filter(|path| path.is_dir() && !path.is_symlink());
    let deeper = |path: PathBuf| {
        let mut found = if depth > 0 { cgroups(&path, depth - 1) } else { Vec::new() };
        found.push(format!("cgroup {}", path.display()));
        found
    };
    below.flat_map(deeper).collect()
}
