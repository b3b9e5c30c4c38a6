//! As much of HTTP/1.1 as registries need: one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that neither the kernel gives to connections nor well-known servers have.
const FREE_PORTS: std::ops::Range<u32> = 10_000..30_000;

/// How many this process was given.
static GIVEN: AtomicU32 = AtomicU32::new(0);

/// A port for a server that is to be told one. Nobody has it just now, nor is it likely to be taken
/// before that server starts: the kernel gives it to no connection, and each test looks elsewhere.
pub fn free_port() -> u16 {
    let count = FREE_PORTS.end - FREE_PORTS.start;
    let first =
        std::process::id().wrapping_mul(16).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
    let ports = (0..count).map(|step| FREE_PORTS.start + first.wrapping_add(step) % count);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut free = ports.filter_map(|port| u16::try_from(port).ok()).filter(is_free);
    free.next().expect("a port is free")
}

/// A request that a server of the tests received.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`, ..
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    /// Reads a request without a body; `None` when the client closed without asking.
    pub(crate) fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let (line, headers) = head(&mut reader)?;
        let mut words = line.split(' ');
        Some(Self { method: words.next()?.to_owned(), path: words.next()?.to_owned(), headers })
    }
}

/// An answer that the tests' client received: status, headers (names in lower case), body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// Sends a request to `HOST:PORT` and reads the whole answer.
pub(crate) fn send(host: &str, method: &str, path: &str, media_type: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host).expect("the registry accepts connections");
    let head_text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head_text.as_bytes()).expect("a request");
    stream.write_all(body).expect("a request");
    let mut reader = BufReader::new(stream);
    let (line, headers) = head(&mut reader).expect("an answer");
    let status = line.split(' ').nth(1).expect("a status").parse().expect("a number");
    let mut body = Vec::new();
    reader.read_to_end(&mut body).expect("an answer");
    Answer { status, headers, body }
}

fn head(reader: &mut impl BufRead) -> Option<(String, BTreeMap<String, String>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let first = line.trim_end().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => return Some((first, headers)),
        };
    }
}
