//! Where the tasks of a node meet: an abstract Unix socket. Who binds its name is the leader; the
//! kernel takes the name back with the leader's last descriptor, however it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;

use crate::step::Step;
use crate::wire::{self, Answer, LINE_MAX};

/// How many names another user may have taken before one is told so.
const NAMES_MAX: usize = 16;

/// Which part this task plays.
#[derive(Debug)]
pub(crate) enum Role {
    /// It speaks for the node.
    Leader(UnixListener),
    /// Another task does.
    Guest(UnixStream),
}

/// Becomes the node's leader, or finds it. `None` where the one that was there is just leaving.
///
/// # Errors
///
/// `EADDRINUSE` where other users have taken all names.
pub(crate) fn enter(step: &Step, user: u32) -> std::io::Result<Option<Role>> {
    for index in 0..NAMES_MAX {
        let name = format!("sarus-slurm-sync/{user}/{}/{}/{index}", step.id, step.node);
        let address = SocketAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(Some(Role::Leader(listener))),
            Err(error) if error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let stream = match UnixStream::connect_addr(&address) {
            Ok(stream) => stream,
            // It is about to listen, or has just ended.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        if is_own(&stream)? {
            return Ok(Some(Role::Guest(stream)));
        }
    }
    Err(Errno::ADDRINUSE.into())
}

/// Whether the process at the other end is the user's.
pub(crate) fn is_own(stream: &UnixStream) -> std::io::Result<bool> {
    Ok(socket_peercred(stream)?.uid == rustix::process::geteuid())
}

/// Tells the leader that this task is here, and waits for its answer. `None` where the leader
/// ended without one.
pub(crate) fn ask(stream: &UnixStream, rank: u32) -> Option<Answer> {
    let mut to = stream;
    to.write_all(wire::rank_line(rank).as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).take(LINE_MAX as u64).read_line(&mut line).ok()?;
    Answer::parse(line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str) -> Step {
        Step {
            id: format!("{id}.{}", std::process::id()),
            tasks: 2,
            rank: 0,
            nodes: 1,
            node: 0,
            first_node: Vec::new(),
        }
    }

    #[test]
    fn the_first_leads_and_the_next_is_a_guest_until_it_ends() {
        let step = step("leads");
        let Some(Role::Leader(listener)) = enter(&step, 1).unwrap() else { panic!("no leader") };
        let Some(Role::Guest(guest)) = enter(&step, 1).unwrap() else { panic!("no guest") };
        let (mut served, _) = listener.accept().unwrap();
        assert!(is_own(&served).unwrap());
        served.write_all(b"go\n").unwrap();
        assert_eq!(ask(&guest, 1), Some(Answer::Go));
        drop((listener, served));
        assert_eq!(ask(&guest, 1), None);
        assert!(matches!(enter(&step, 1).unwrap(), Some(Role::Leader(_))));
    }
}
