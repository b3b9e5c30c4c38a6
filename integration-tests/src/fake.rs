//! A registry in memory that answers as a test says: wrong, late, with tokens, or well.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::http::Request;
use crate::image::{Packed, sha256};

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection closes, if not all.
    cut_at: Option<usize>,
}

impl Reply {
    /// A reply with a status and a body.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self { status, headers: Vec::new(), body: body.as_ref().to_vec(), cut_at: None }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The connection closes after `bytes` of the body, which was announced in full.
    pub fn cut_at(mut self, bytes: usize) -> Self {
        self.cut_at = Some(bytes);
        self
    }

    /// What it would send as its body.
    pub fn body_mut(&mut self) -> &mut Vec<u8> {
        &mut self.body
    }

    fn send(&self, stream: &mut TcpStream, head_only: bool) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} .\r\nConnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| name == "Content-Length") {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        if !head_only {
            stream
                .write_all(&self.body[..self.cut_at.unwrap_or(usize::MAX).min(self.body.len())])?;
        }
        stream.shutdown(Shutdown::Write)
    }
}

/// A blob that is held back, until this is dropped.
#[derive(Debug)]
pub struct Held {
    asked: Receiver<()>,
    _go_on: Sender<()>,
}

impl Held {
    /// Waits until somebody asks for the blob.
    pub fn wait_until_asked(&self) {
        self.asked.recv().expect("the registry lives as long as the test");
    }
}

/// The server; it ends with the process of the test.
#[derive(Debug)]
pub struct FakeRegistry {
    host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl FakeRegistry {
    /// Answers requests with `answer`, each on a thread of its own.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || converse(stream, answer.as_ref(), &seen));
            }
        });
        Self { host, log }
    }

    /// Serves an image as a registry does, but for the requests that `fault` answers.
    pub fn serve(
        image: Packed,
        fault: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| fault(request).unwrap_or_else(|| answer(&image, request)))
    }

    /// Serves an image as a registry does, but for one blob: whoever asks for it waits until the
    /// [`Held`] is dropped.
    pub fn holding(image: Packed, digest: &str) -> (Self, Held) {
        let (asked, was_asked) = channel();
        let (go_on, told) = channel::<()>();
        let (digest, told) = (digest.to_owned(), Mutex::new(told));
        let registry = Self::serve(image, move |request| {
            if request.path.ends_with(&digest) && asked.send(()).is_ok() {
                let _dropped = told.lock().expect("no thread panics with it").recv();
            }
            None
        });
        (registry, Held { asked: was_asked, _go_on: go_on })
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("no thread panics with it").clone()
    }
}

fn converse(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) {
    if let Some(request) = Request::read(&stream) {
        log.lock().expect("no thread panics with it").push(request.clone());
        // A client that left in the middle is part of some tests.
        drop(answer(&request).send(&mut stream, request.method == "HEAD"));
    }
}

/// What a registry with one image under every name and tag answers.
pub fn answer(image: &Packed, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if let Some((_, reference)) = path.split_once("/manifests/") {
        let found = match reference.starts_with("sha256:") {
            true => image.manifests.iter().find(|(_, bytes)| sha256(bytes) == reference),
            false => Some(image.top()),
        };
        return found.map_or_else(
            || Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            |(media_type, bytes)| {
                Reply::new(200, bytes)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", sha256(bytes))
            },
        );
    }
    let digest = path.split_once("/blobs/").map(|(_, digest)| digest);
    let Some(bytes) = digest.and_then(|digest| image.blobs.get(digest)) else {
        return Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#);
    };
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    match range.and_then(|range| range.split('-').next()?.parse::<usize>().ok()) {
        Some(from) if from > 0 && from < bytes.len() => Reply::new(206, &bytes[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        _ => Reply::new(200, bytes),
    }
}
