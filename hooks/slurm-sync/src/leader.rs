//! The leader of a node: hears the node's tasks, passes on who is here, and gives all the answer.
//! The leader of the first node makes the answer.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sarus_hook::Failure;

use crate::peer::{Heard, Peer, Trust};
use crate::step::{self, Step};
use crate::wire::{self, Answer, Bytes, Handshake};
use crate::{local, remote};

/// Most connections that have not proved who they are; the oldest gives way.
const STRANGERS_MAX: usize = 2048;

/// Whom the leader asks.
#[derive(Debug)]
pub(crate) enum Above<'a> {
    /// Nobody: all tasks are on this node.
    Nobody,
    /// Nobody: it is asked by the other nodes.
    Others { listener: TcpListener, key: &'a Bytes },
    /// The leader of the first node.
    First(Peer),
}

/// A node's leader.
#[derive(Debug)]
pub(crate) struct Leader<'a> {
    step: &'a Step,
    listener: UnixListener,
    peers: Vec<Peer>,
    here: BTreeSet<u32>,
}

impl<'a> Leader<'a> {
    /// The leader is a task itself, and here.
    pub(crate) fn new(step: &'a Step, listener: UnixListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { step, listener, peers: Vec::new(), here: BTreeSet::from([step.rank]) })
    }

    /// Hears everybody until there is an answer. `None` where it is to be asked for anew: the
    /// leader of the first node ended without one, and there is another one soon, or a task of this
    /// node that the first was told of has ended.
    ///
    /// # Errors
    ///
    /// Where the kernel does not wait.
    pub(crate) fn gather(
        &mut self,
        above: &mut Above<'_>,
        until: Instant,
    ) -> Result<Option<Answer>, Failure> {
        if let Above::First(first) = above {
            let known: String = self.here.iter().map(|rank| wire::rank_line(*rank)).collect();
            first.say(&known);
        }
        loop {
            if !matches!(above, Above::First(_)) {
                if self.here.len() == self.step.tasks as usize {
                    return Ok(Some(Answer::Go));
                }
                if Instant::now() >= until {
                    let list = step::missing(self.step.tasks, &self.here);
                    return Ok(Some(Answer::Missing(list)));
                }
            }
            self.wait(above, until)
                .map_err(|error| Failure::new("cannot wait for the other tasks").because(error))?;
            self.accept(above);
            let news = self.hear(above);
            if let Above::First(first) = above {
                let new: String = news.came.iter().map(|rank| wire::rank_line(*rank)).collect();
                if !new.is_empty() {
                    first.say(&new);
                }
                match first.hear() {
                    Heard::Gone => return Ok(None),
                    Heard::Lines(lines) => {
                        let answer = lines.iter().find_map(|line| Answer::parse(line));
                        // Who counts fewer says so by coming anew.
                        if answer.is_some() || news.is_fewer {
                            return Ok(answer);
                        }
                    }
                }
            }
        }
    }

    /// Gives the answer to all who are connected, those included who came just now.
    pub(crate) fn tell(&mut self, answer: &Answer) {
        self.accept(&mut Above::Nobody);
        for peer in &mut self.peers {
            if peer.trust == Trust::Known {
                peer.say(&answer.line());
            }
        }
    }

    fn wait(&self, above: &Above<'_>, until: Instant) -> std::io::Result<()> {
        let mut waited = vec![PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN)];
        // Who asks above does not count the time: the answer comes from there.
        let mut limit = None;
        match above {
            Above::First(first) => {
                waited.push(PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN));
            }
            Above::Others { listener, .. } => {
                waited.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
            }
            Above::Nobody => {}
        }
        if !matches!(above, Above::First(_)) {
            let left = until.saturating_duration_since(Instant::now());
            limit = Timespec::try_from(left).ok();
        }
        let peers = self.peers.iter();
        waited.extend(peers.map(|peer| PollFd::from_borrowed_fd(peer.as_fd(), PollFlags::IN)));
        match poll(&mut waited, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self, above: &mut Above<'_>) {
        while let Ok((stream, _)) = self.listener.accept() {
            if local::is_own(&stream).is_ok_and(|own| own) {
                self.peers.extend(Peer::local(stream).ok());
            }
        }
        if let Above::Others { listener, .. } = above {
            while let Ok((stream, _)) = listener.accept() {
                self.make_room();
                self.peers.extend(remote::greet(stream).ok());
            }
        }
    }

    fn make_room(&mut self) {
        let is_stranger = |peer: &Peer| peer.trust != Trust::Known;
        if self.peers.iter().filter(|peer| is_stranger(peer)).count() >= STRANGERS_MAX
            && let Some(oldest) = self.peers.iter().position(is_stranger)
        {
            drop(self.peers.remove(oldest));
        }
    }

    /// Hears everybody who said something.
    fn hear(&mut self, above: &Above<'_>) -> News {
        let mut news = News::default();
        let handshake = match above {
            Above::Others { key, .. } => Some(Handshake { key, step: &self.step.id }),
            _ => None,
        };
        let (tasks, here) = (self.step.tasks, &mut self.here);
        self.peers.retain_mut(|peer| {
            let lines = match peer.hear() {
                Heard::Lines(lines) => lines,
                Heard::Gone => {
                    news.is_fewer |= !peer.ranks.is_empty();
                    return false;
                }
            };
            let is_heard = lines.iter().all(|line| match (peer.trust, &handshake) {
                (Trust::Greeted(nonce), Some(handshake)) => {
                    remote::admit(peer, &nonce, line, handshake)
                }
                (Trust::Greeted(_), None) => false,
                (Trust::Known, _) => match wire::parse_rank(line) {
                    Some(rank) if rank < tasks => {
                        peer.ranks.insert(rank);
                        if here.insert(rank) {
                            news.came.push(rank);
                        }
                        true
                    }
                    _ => false,
                },
            });
            news.is_fewer |= !is_heard && !peer.ranks.is_empty();
            is_heard
        });
        if news.is_fewer {
            let others = self.peers.iter().flat_map(|peer| peer.ranks.iter().copied());
            self.here = others.chain([self.step.rank]).collect();
        }
        news
    }
}

/// What changed.
#[derive(Debug, Default)]
struct News {
    /// Tasks that are here now and were not before.
    came: Vec<u32>,
    /// Somebody left, and with them the tasks that they spoke for.
    is_fewer: bool,
}
