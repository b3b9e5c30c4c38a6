//! The user's keys: one for the servers in all their containers, and one by which these let each
//! other in. In the user's directory, mode 0600, made by `sarus ssh-keygen`.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sarus_hook::{Account, Failure};

use crate::software;

/// The server's key, in dropbear's format.
const HOST: &str = "dropbear_ed25519_host_key";

/// Its public part, by which the client knows the servers.
const HOST_PUBLIC: &str = "dropbear_ed25519_host_key.pub";

/// The user's private key, in dropbear's format.
const USER: &str = "id_dropbear";

/// The user's public key.
const PUBLIC: &str = "id_dropbear.pub";

const NAMES: [&str; 4] = [HOST, HOST_PUBLIC, USER, PUBLIC];

/// How the names of directories begin in which keys are made, beside the one that they go to.
const ASIDE: &str = "keys.new.";

/// Age at which such a directory was left by somebody who was killed.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);

/// Largest key file that is read, in bytes.
const SIZE_MAX: u64 = 64 << 10;

/// The contents of the key files.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) host: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) public: String,
    pub(crate) host_public: String,
}

/// Reads the keys, with the rights of the caller.
///
/// # Errors
///
/// Where there are none, or others may read them.
pub(crate) fn load(directory: &Path) -> Result<Keys, Failure> {
    let private = |name: &str| {
        let path = directory.join(name);
        let failed = || Failure::new(format!("cannot read your ssh key `{}`", path.display()));
        let found = std::fs::symlink_metadata(&path)
            .map_err(|error| failed().because(error).hint("`sarus ssh-keygen` makes it"))?;
        if !found.is_file() || found.mode() & 0o077 != 0 {
            return Err(failed()
                .because("it is not yours alone (mode 0600)")
                .hint("`sarus ssh-keygen --overwrite` makes a new one"));
        }
        read(&path, SIZE_MAX).map_err(|error| failed().because(error))
    };
    let public = |name: &str| {
        let path = directory.join(name);
        let text = read(&path, SIZE_MAX).map_err(|error| {
            Failure::new(format!("cannot read your ssh key `{}`", path.display()))
                .because(error)
                .hint("`sarus ssh-keygen --overwrite` makes new ones")
        })?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        // They become lines of other files.
        match text.starts_with("ssh-") && !text.contains(['\n', '\'']) {
            true => Ok(text),
            false => Err(Failure::new(format!("`{}` is no public ssh key", path.display()))
                .hint("`sarus ssh-keygen --overwrite` makes new ones")),
        }
    };
    Ok(Keys {
        host: private(HOST)?,
        user: private(USER)?,
        public: public(PUBLIC)?,
        host_public: public(HOST_PUBLIC)?,
    })
}

/// Reads a regular file up to a size. Never waits for a pipe.
pub(crate) fn read(path: &Path, size_max: u64) -> std::io::Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(size_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `sarus-hook-ssh keygen [--overwrite]`
pub(crate) fn command(words: &[String]) -> ExitCode {
    let overwrites = match words {
        [] => false,
        [word] if word == "--overwrite" => true,
        _ => return complain(&Failure::new("usage: keygen [--overwrite]")),
    };
    match generate(overwrites) {
        Ok(directory) => {
            // Where nobody reads it, the keys are there all the same.
            let _closed = writeln!(std::io::stdout(), "{}", directory.display());
            ExitCode::SUCCESS
        }
        Err(failure) => complain(&failure),
    }
}

fn complain(failure: &Failure) -> ExitCode {
    let _nobody_hears_it = writeln!(std::io::stderr(), "error: {failure}");
    ExitCode::from(125)
}

fn generate(overwrites: bool) -> Result<PathBuf, Failure> {
    let account = Account::own()?;
    let directory = account.directory(crate::NAME).join("keys");
    let failed = || Failure::new(format!("cannot make ssh keys in `{}`", directory.display()));
    let exist = [HOST, USER].iter().any(|name| directory.join(name).exists());
    if exist && !overwrites {
        return Err(failed().because("there are keys already").hint(
            "`sarus ssh-keygen --overwrite` replaces them; running containers keep the old",
        ));
    }
    let dropbear = std::env::var_os("DROPBEAR_DIR").map(PathBuf::from);
    let program = software::program("dropbearkey", dropbear.as_deref())?;
    let made = || -> std::io::Result<()> {
        let above = directory.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(above)?;
        sweep(above);
        let aside = above.join(format!("{ASIDE}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&aside)?;
        let made = make_in(&program, &aside, &account.name)
            .and_then(|()| put_in_place(&aside, &directory, overwrites));
        // After a replacement these are the old ones.
        std::fs::remove_dir_all(&aside).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        made
    };
    made().map_err(|error| failed().because(error))?;
    Ok(directory)
}

/// Moves all keys at once to where they belong, so that no private key is ever beside another's
/// public one. What else is in the directory stays there.
fn put_in_place(aside: &Path, directory: &Path, overwrites: bool) -> std::io::Result<()> {
    match std::fs::rename(aside, directory) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
        moved => return moved,
    }
    let others = || -> std::io::Result<Vec<std::ffi::OsString>> {
        let names = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<std::io::Result<_>>()?;
        Ok(names.into_iter().filter(|name| NAMES.iter().all(|ours| name != ours)).collect())
    };
    let others = others()?;
    let has_keys = [HOST, USER].iter().any(|name| directory.join(name).exists());
    if has_keys && !overwrites {
        return Err(std::io::Error::other("somebody else is making them"));
    }
    let flags = RenameFlags::EXCHANGE;
    match renameat_with(CWD, aside, CWD, directory, flags) {
        // Not every network file system can.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let old = aside.with_extension("old");
            std::fs::rename(directory, &old)?;
            std::fs::rename(aside, directory)?;
            std::fs::rename(old, aside)?;
        }
        exchanged => exchanged?,
    }
    others.iter().try_for_each(|name| std::fs::rename(aside.join(name), directory.join(name)))
}

/// Removes what killed ones left, as far as that can be known: nobody makes keys for that long.
fn sweep(above: &Path) {
    let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE)) {
        let age = entry.metadata().and_then(|found| found.modified()).map(|time| time.elapsed());
        if matches!(age, Ok(Ok(age)) if age > ABANDONED_AFTER) {
            let _stays_for_the_next = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn make_in(program: &Path, aside: &Path, user: &str) -> std::io::Result<()> {
    for (private, public) in [(HOST, HOST_PUBLIC), (USER, PUBLIC)] {
        let said = make_key(program, &aside.join(private))?;
        let key = said.lines().find(|line| line.starts_with("ssh-ed25519 "));
        let key = key.ok_or_else(|| std::io::Error::other("dropbearkey said no public key"))?;
        // The host on which it was made means nothing to who reads it.
        let key: Vec<&str> = key.split(' ').take(2).collect();
        fs_err::write(aside.join(public), format!("{} {user}\n", key.join(" ")))?;
    }
    Ok(())
}

fn make_key(program: &Path, file: &Path) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(["-t", "ed25519", "-f"]).arg(file);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let program = program.display();
        return Err(std::io::Error::other(format!("`{program}`: {}: {said}", output.status)));
    }
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_at_once_and_what_else_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (aside, place) = (folder.path().join("keys.new.1"), folder.path().join("keys"));
        let fill = |text: &str| {
            fs_err::create_dir(&aside).unwrap();
            NAMES.iter().for_each(|name| fs_err::write(aside.join(name), text).unwrap());
        };
        let read = |name: &str| fs_err::read_to_string(place.join(name)).unwrap();
        fill("first");
        put_in_place(&aside, &place, false).unwrap();
        fs_err::write(place.join("older"), "kept").unwrap();
        fill("second");
        assert!(put_in_place(&aside, &place, false).is_err());
        assert!(NAMES.iter().all(|name| read(name) == "first"));
        put_in_place(&aside, &place, true).unwrap();
        assert!(NAMES.iter().all(|name| read(name) == "second"));
        assert_eq!(read("older"), "kept");
        assert_eq!(fs_err::read_to_string(aside.join(HOST)).unwrap(), "first");
    }

    #[test]
    fn keys_that_others_may_read_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let failure = load(folder.path()).unwrap_err().to_string();
        assert!(failure.contains("sarus ssh-keygen"), "{failure}");
        for name in [HOST, HOST_PUBLIC, USER, PUBLIC] {
            fs_err::write(folder.path().join(name), format!("ssh-x {name}\n")).unwrap();
        }
        let mode = |mode| {
            for name in [HOST, USER] {
                let mode = std::fs::Permissions::from_mode(mode);
                fs_err::set_permissions(folder.path().join(name), mode).unwrap();
            }
        };
        mode(0o640);
        let failure = load(folder.path()).unwrap_err().to_string();
        assert!(failure.contains("not yours alone"), "{failure}");
        mode(0o600);
        assert_eq!(load(folder.path()).unwrap().public, format!("ssh-x {PUBLIC}"));
        fs_err::write(folder.path().join(PUBLIC), "ssh-x a\nssh-x b\n").unwrap();
        let failure = load(folder.path()).unwrap_err().to_string();
        assert!(failure.contains("is no public ssh key"), "{failure}");
    }
}
