//! The way from node to node: TCP, with a proof on both sides that it is the same user's step.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use sarus_hook::Failure;
use sha2::{Digest, Sha256};

use crate::peer::{Peer, Trust};
use crate::step::Step;
use crate::wire::{self, Bytes, Handshake, LINE_MAX, Side};
use crate::{key, meet};

/// How many ports a step has to choose from.
const PORTS_MAX: u8 = 4;

/// Time for the other node to accept a connection, and again for each of its lines.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first pause between two attempts to reach the first node; each is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The ports of a step, in the order in which they are tried. They follow from user and step, so
/// that nobody has to be told.
pub(crate) fn ports(range: &RangeInclusive<u16>, user: u32, step: &str) -> Vec<u16> {
    let count = u32::from(range.end() - range.start()) + 1;
    let port = |index: u8| {
        let digest = Sha256::digest(format!("{user}/{step}/{index}"));
        let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
        range.start() + u16::try_from(number % count).unwrap_or_default()
    };
    let mut ports: Vec<u16> = Vec::new();
    for port in (0..PORTS_MAX).map(port) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

/// Listens on the first port that is free, at all addresses.
pub(crate) fn listen(ports: &[u16]) -> Result<TcpListener, Failure> {
    let mut last = ErrorKind::AddrNotAvailable.into();
    for port in ports {
        for address in ["[::]", "0.0.0.0"] {
            let opened = TcpListener::bind(format!("{address}:{port}"));
            match opened.and_then(|opened| opened.set_nonblocking(true).map(|()| opened)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
    }
    let what =
        format!("cannot listen for the other nodes of the step on any of the ports {ports:?}");
    Err(Failure::new(what).because(last).hint("`SYNC_PORTS` in the hook's file gives a range"))
}

/// Connects to the leader of the step's first node as soon as there is one.
///
/// # Errors
///
/// Where nobody who has the key answers in time.
pub(crate) fn reach(
    step: &Step,
    ports: &[u16],
    key: &Bytes,
    until: Instant,
) -> Result<Peer, Failure> {
    let addresses = addresses(step)?;
    let mut pause = PAUSE_MIN;
    loop {
        let mut last = None;
        for address in &addresses {
            for port in ports {
                match connect(SocketAddr::new(*address, *port), step, key) {
                    Ok(peer) => return Ok(peer),
                    // Who refused is there; who is silent, or has another key, says more.
                    Err(error)
                        if last.is_some() && error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => last = Some(error),
                }
            }
        }
        if Instant::now() + pause >= until {
            let node = step.first_node.first().map_or("", String::as_str);
            let what = format!("the step's first node `{node}` does not answer");
            let failure = Failure::new(what).hint(
                "do the tasks of that node run `sarus run` with this hook, do the nodes reach each \
                 other on those ports, and is `HOOK_BASE_DIR` the same directory on all?",
            );
            let ports = format!("tried the ports {ports:?}");
            return Err(match last {
                Some(error) => failure.because(error).because(ports),
                None => failure.because(ports),
            });
        }
        // Nothing tells that another machine listens.
        meet::pause(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn addresses(step: &Step) -> Result<Vec<IpAddr>, Failure> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for name in &step.first_node {
        match (name.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => {
                for address in addresses.map(|address| address.ip()) {
                    if !found.contains(&address) {
                        found.push(address);
                    }
                }
            }
            Err(error) => last = Some(format!("`{name}`: {error}")),
        }
    }
    if found.is_empty() {
        let because = last.unwrap_or_else(|| "`SLURM_STEP_NODELIST` is not set".to_owned());
        let failure = Failure::new("cannot find the address of the step's first node");
        return Err(failure.because(because).hint("nodes must know each other by name"));
    }
    Ok(found)
}

fn connect(address: SocketAddr, step: &Step, key: &Bytes) -> std::io::Result<Peer> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let other = || std::io::Error::new(ErrorKind::InvalidData, "something else answers there");
    let stranger = || {
        let what = "it has another key, or another step";
        std::io::Error::new(ErrorKind::PermissionDenied, what)
    };
    // The handshake's lines only: what follows is read by nobody else.
    let mut reader = BufReader::with_capacity(256, stream.try_clone()?);
    let first = wire::parse_greeting(&line(&mut reader)?).ok_or_else(other)?;
    let own = key::random()?;
    let handshake = Handshake { key, step: &step.id };
    let proof = handshake.proof(Side::Other, &first, &own);
    stream.write_all(wire::hello(&own, &proof).as_bytes())?;
    let answer = line(&mut reader).map_err(|_closed| stranger())?;
    let proof = wire::parse_known(&answer).ok_or_else(stranger)?;
    if !handshake.is_proof(Side::First, (&first, &own), &proof) {
        return Err(stranger());
    }
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Peer::remote(stream, Trust::Known)
}

fn line(reader: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    reader.take(LINE_MAX as u64).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

/// Greets who has connected.
pub(crate) fn greet(stream: TcpStream) -> std::io::Result<Peer> {
    let nonce = key::random()?;
    let mut peer = Peer::remote(stream, Trust::Greeted(nonce))?;
    peer.say(&wire::greeting(&nonce));
    Ok(peer)
}

/// Whether the answer to a greeting proves that the other side has the key; it is told the same.
pub(crate) fn admit(peer: &mut Peer, nonce: &Bytes, line: &str, handshake: &Handshake<'_>) -> bool {
    let Some((other, proof)) = wire::parse_hello(line) else { return false };
    if !handshake.is_proof(Side::Other, (nonce, &other), &proof) {
        return false;
    }
    peer.trust = Trust::Known;
    peer.say(&wire::known(&handshake.proof(Side::First, nonce, &other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Heard;

    fn step() -> Step {
        let first_node = vec!["127.0.0.1".to_owned()];
        Step { id: "7.0".into(), tasks: 2, rank: 1, nodes: 2, node: 1, first_node }
    }

    /// Plays the first node once, with a key of its own, and says whether it admitted who came.
    fn first_node(listener: TcpListener, key: Bytes) -> std::thread::JoinHandle<bool> {
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = greet(stream).unwrap();
            let Trust::Greeted(nonce) = peer.trust else { panic!("not greeted") };
            loop {
                match peer.hear() {
                    Heard::Gone => return false,
                    Heard::Lines(lines) => {
                        if let Some(line) = lines.first() {
                            let handshake = Handshake { key: &key, step: "7.0" };
                            return admit(&mut peer, &nonce, line, &handshake);
                        }
                    }
                }
            }
        })
    }

    #[test]
    fn only_who_has_the_key_is_admitted() {
        for (theirs, is_same) in [([1; 32], true), ([2; 32], false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let first = first_node(listener, theirs);
            let until = Instant::now() + Duration::from_millis(1);
            let reached = reach(&step(), &[port], &[1; 32], until);
            assert_eq!(first.join().unwrap(), is_same);
            match reached {
                Ok(_) => assert!(is_same),
                Err(failure) => {
                    assert!(!is_same && failure.to_string().contains("another key"), "{failure}");
                }
            }
        }
    }

    #[test]
    fn a_steps_ports_are_in_the_range_and_always_the_same() {
        let range = 61_000..=61_009;
        let chosen = ports(&range, 7, "1.0");
        assert_eq!(chosen, ports(&range, 7, "1.0"));
        assert!(chosen.iter().all(|port| range.contains(port)), "{chosen:?}");
        assert_eq!(ports(&(5..=5), 7, "1.0"), [5]);
        assert_ne!(ports(&(1..=60_000), 7, "1.0"), ports(&(1..=60_000), 7, "1.1"));
    }

    #[test]
    fn a_node_without_an_address_is_named() {
        let nowhere = Step { first_node: vec!["no-such-node.invalid".into()], ..step() };
        let failure = reach(&nowhere, &[1], &[0; 32], Instant::now()).unwrap_err().to_string();
        assert!(failure.contains("no-such-node.invalid"), "{failure}");
    }
}
