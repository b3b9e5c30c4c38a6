//! Looking at what a user wrote, in a process that can do no harm.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::process::{Resource, Rlimit, setrlimit};
use sarus_sys::process::{Ended, Fork, PidFd, duplicate, exit_at_once, fork};

use crate::account::become_for_good;
use crate::{Failure, Person};

/// Address space of the process, in bytes.
const MEMORY_MAX: u64 = 1 << 30;

/// Most that is read of its answer, in bytes.
const ANSWER_MAX: u64 = 256 << 20;

/// Time that it has.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `look` in a process with the person's rights and no capability, and returns its answer.
pub(crate) fn apart<T>(person: &Person, look: impl FnOnce() -> T) -> Result<T, Failure>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let failed = || Failure::new("cannot look into the container's files");
    let words = |error: std::io::Error| failed().because(error);
    let memory = memfd_create("answer", MemfdFlags::CLOEXEC).map_err(|e| words(e.into()))?;
    let mut answer = std::fs::File::from(memory);
    match fork().map_err(words)? {
        Fork::Child => {
            let looked = no_streams().and_then(|()| give_up(person)).map(|()| look());
            let told = looked.and_then(|found| {
                let text = serde_json::to_vec(&found)?;
                answer.write_all(&text)
            });
            exit_at_once(i32::from(told.is_err()))
        }
        Fork::Parent(child) => {
            let process = PidFd::open(child.pid()).map_err(words)?;
            let mut waited = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
            let limit = Timespec::try_from(PATIENCE).unwrap_or_default();
            let ready = rustix::io::retry_on_intr(|| poll(&mut waited, Some(&limit)));
            if ready.map_err(|e| words(e.into()))? == 0 {
                process.signal(libc::SIGKILL).map_err(words)?;
            }
            match child.wait().map_err(words)? {
                Ended::Exited(0) => {}
                ended => {
                    let because = format!("the process that did it ended early ({ended:?})");
                    return Err(failed().because(because));
                }
            }
            let mut text = Vec::new();
            answer.rewind().map_err(words)?;
            answer.take(ANSWER_MAX).read_to_end(&mut text).map_err(words)?;
            serde_json::from_slice(&text).map_err(|error| failed().because(error))
        }
    }
}

/// What the hook's caller reads is not for a process to write that a hostile file may have taken
/// over.
fn no_streams() -> std::io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let null = open("/dev/null", flags, Mode::empty())?;
    for number in [0, 1, 2] {
        duplicate(null.as_fd(), number)?;
    }
    Ok(())
}

/// Gives up all rights that the person does not have, and limits what a parser can use up.
fn give_up(person: &Person) -> std::io::Result<()> {
    become_for_good(person)?;
    let limit = Rlimit { current: Some(MEMORY_MAX), maximum: Some(MEMORY_MAX) };
    setrlimit(Resource::As, limit)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_process_apart_comes_back() {
        let person = Person { uid: rustix::process::getuid().as_raw(), gid: 0, groups: Vec::new() };
        let own = std::process::id();
        let (pid, words) = apart(&person, || (std::process::id(), vec!["a", "b"].len())).unwrap();
        assert_ne!(pid, own);
        assert_eq!(words, 2);
    }

    #[test]
    fn a_process_that_dies_is_an_error() {
        let failure = apart::<()>(&Person::default(), || exit_at_once(3)).unwrap_err();
        assert!(failure.to_string().contains("ended early"), "{failure}");
    }
}
