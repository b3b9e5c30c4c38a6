//! The user for whom a hook works, as the host knows them, and acting with that user's rights.

use std::path::{Path, PathBuf};

use rustix::process::Gid;
use sarus_sys::identity::{self, become_person};
use sarus_sys::{namespace, users};

use crate::{Container, Failure, Person};

/// Environment variable of a hook: the directory that has the users' directories.
const HOOK_BASE_DIR: &str = "HOOK_BASE_DIR";

/// Environment variable of a hook: a file in the format of `passwd(5)`.
const PASSWD_FILE: &str = "PASSWD_FILE";

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User id on the host.
    pub uid: u32,
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

impl Account {
    /// The container's user on the host: looked up in the file that the hook's variable
    /// `PASSWD_FILE` names, else in the host's data base.
    ///
    /// # Errors
    ///
    /// Where there is no such user, or the file cannot be read.
    pub fn of(container: &Container) -> Result<Self, Failure> {
        Self::with_id(host_user(container))
    }

    /// The user who runs this process.
    ///
    /// # Errors
    ///
    /// As [`Account::of`].
    pub fn own() -> Result<Self, Failure> {
        Self::with_id(host_id(rustix::process::geteuid().as_raw()))
    }

    /// The user with that id on the host.
    ///
    /// # Errors
    ///
    /// As [`Account::of`].
    pub fn with_id(uid: u32) -> Result<Self, Failure> {
        let failed = || Failure::new(format!("cannot find out the name of user {uid}"));
        let Some(file) = std::env::var_os(PASSWD_FILE).map(PathBuf::from) else {
            let found = users::user(uid);
            let found =
                found.map(|user| Self { uid, name: user.name, home: PathBuf::from(user.home) });
            return found.ok_or_else(|| {
                failed()
                    .because("the host's data base of users has none with that id")
                    .hint("set `PASSWD_FILE` in the hook's file to a file that has all users")
            });
        };
        let text = fs_err::read_to_string(&file).map_err(|error| failed().because(error))?;
        in_passwd(&text, uid).ok_or_else(|| {
            failed().because(format!("`{}` (`PASSWD_FILE`) has none with that id", file.display()))
        })
    }

    /// Where a hook keeps what is the user's: `HOOK_BASE_DIR/NAME/.oci-hooks/HOOK` where the hook's
    /// file sets the variable, as with Sarus 1.7; else `.oci-hooks/HOOK` in the home directory.
    pub fn directory(&self, hook: &str) -> PathBuf {
        let base = std::env::var_os(HOOK_BASE_DIR);
        let base = base.map_or_else(|| self.home.clone(), |base| Path::new(&base).join(&self.name));
        base.join(".oci-hooks").join(hook)
    }
}

/// Gives up, for good, every right that the container's user does not have: before a hook touches
/// directories of the user's. In a user namespace its files are the user's as it is, and the rights
/// over the namespace go.
///
/// # Errors
///
/// As `setresuid(2)`; the process must end then.
pub fn give_up_rights(person: &Person) -> Result<(), Failure> {
    let failed = |error| Failure::new("cannot act with the user's rights alone").because(error);
    become_for_good(person).map_err(failed)
}

/// The same, as the kernel answers.
pub(crate) fn become_for_good(person: &Person) -> std::io::Result<()> {
    if is_machines_root() {
        let groups: Vec<Gid> = person.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        return become_person(identity::Person { uid: person.uid, gid: person.gid });
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    become_person(identity::Person { uid: uid.as_raw(), gid: gid.as_raw() })
}

/// Whether the hook may do what no user may: it is root, and in no user namespace.
pub(crate) fn is_machines_root() -> bool {
    namespace::is_initial_user() && rustix::process::geteuid().is_root()
}

/// The id on the host of the container's user.
pub fn host_user(container: &Container) -> u32 {
    host_id(container.person().uid)
}

/// What an id of the own user namespace is on the host.
fn host_id(id: u32) -> u32 {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    in_map(&map, id).unwrap_or(id)
}

/// The id outside by the text of `/proc/PID/uid_map`.
fn in_map(map: &str, id: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
        let (inside, outside, count): (u32, u32, u32) =
            (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// The user of that id by the text of a file in the format of `passwd(5)`.
fn in_passwd(text: &str, uid: u32) -> Option<Account> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, home) = (fields.first()?, fields.get(5)?);
        let is_it = fields.get(2)?.parse() == Ok(uid) && !name.is_empty() && !name.contains('/');
        is_it.then(|| Account { uid, name: (*name).to_owned(), home: PathBuf::from(home) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_as_the_kernel_does() {
        let whole = "         0          0 4294967295\n";
        let podmans = "0 1000 1\n1 100000 65536\n";
        for (map, id, want) in [
            (whole, 7, Some(7)),
            ("0 1000 1", 0, Some(1000)),
            ("0 1000 1", 1, None),
            (podmans, 1, Some(100_000)),
            (podmans, 1000, Some(100_999)),
            ("", 3, None),
        ] {
            assert_eq!(in_map(map, id), want, "{map:?} {id}");
        }
    }

    #[test]
    fn a_passwd_file_gives_name_and_home() {
        let text = "root:x:0:0::/root:/bin/sh\nbroken\n../x:x:8:8::/:/bin/sh\nann:x:7:7:A:/home/ann:/bin/sh\n";
        let want = Account { uid: 7, name: "ann".into(), home: "/home/ann".into() };
        assert_eq!(in_passwd(text, 7), Some(want));
        assert_eq!(in_passwd(text, 8), None);
        assert_eq!(in_passwd(text, 9), None);
    }
}
