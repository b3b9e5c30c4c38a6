//! A registry on the loopback interface that answers as a test says, and keeps what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sarus_oci::Digest;
use sarus_oci::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
};
use serde_json::{Value, json};

/// A request as it came; names of headers in lower case.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer. Status 0 closes the connection without one.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: usize,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self { status, headers: Vec::new(), body: body.as_ref().to_vec(), cut: usize::MAX }
    }

    pub(super) fn hang_up() -> Self {
        Self::new(0, "")
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Announces the whole body, and closes after `bytes` of it.
    pub(super) fn cut(mut self, bytes: usize) -> Self {
        self.cut = bytes;
        self
    }

    fn send(&self, stream: &mut TcpStream, head_only: bool) -> std::io::Result<()> {
        if self.status == 0 {
            return stream.shutdown(Shutdown::Both);
        }
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        if !self.headers.iter().any(|(name, _)| name == "Transfer-Encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if !head_only {
            stream.write_all(&self.body[..self.cut.min(self.body.len())])?;
        }
        stream.shutdown(Shutdown::Write)
    }
}

/// The server. Its thread ends with the process.
pub(super) struct Server {
    pub(super) host: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gets the request and how many came before it.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that leaves in the middle is part of some tests.
                drop(converse(stream, &answer, &seen));
            }
        });
        Self { host, log }
    }

    /// What was asked for, but for the first look at `/v2/` by which the scheme is found.
    pub(super) fn requests(&self) -> Vec<Request> {
        let all = self.log.lock().unwrap();
        all.iter().filter(|request| request.path != "/v2/").cloned().collect()
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|it| format!("{} {}", it.method, it.path)).collect()
    }
}

fn converse(
    mut stream: TcpStream,
    answer: &dyn Fn(&Request, usize) -> Reply,
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut first = [0];
    if stream.peek(&mut first)? == 1 && first[0] == 0x16 {
        // A TLS handshake. Go's servers, which most registries are, answer it like this.
        let text = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server";
        stream.write_all(text.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let request = Request { method, path, headers, body };
    let before = log.lock().unwrap().iter().filter(|it| it.path == request.path).count();
    log.lock().unwrap().push(request.clone());
    answer(&request, before).send(&mut stream, request.method == "HEAD")
}

/// Documents and blobs of some images, by tag and by digest.
#[derive(Clone, Default)]
pub(super) struct Contents {
    documents: BTreeMap<String, (String, Vec<u8>)>,
    pub(super) blobs: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// An image for Linux on `architecture` with one layer, tagged `latest`.
    pub(super) fn image(architecture: &str) -> Self {
        let mut contents = Self::default();
        let manifest = contents.add_image(architecture, OCI_MANIFEST);
        contents.tag("latest", &manifest);
        contents
    }

    pub(super) fn layer() -> Vec<u8> {
        (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    pub(super) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256_of(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds a manifest and what it names, and returns its descriptor.
    pub(super) fn add_image(&mut self, architecture: &str, media_type: &str) -> Value {
        let docker = media_type == DOCKER_MANIFEST;
        let config = json!({
            "os": "linux", "architecture": architecture, "config": {},
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config_type = if docker { DOCKER_CONFIG } else { OCI_CONFIG };
        let config = self.blob(config_type, config.to_string().as_bytes());
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &Self::layer());
        let document = json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer],
        });
        // Indented, and with a newline at its end: the digest is that of the bytes as sent.
        let text = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
        let mut descriptor = self.document(media_type, text.as_bytes());
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    }

    pub(super) fn index(&mut self, media_type: &str, entries: &[Value]) -> Value {
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type, "manifests": entries,
        });
        self.document(media_type, index.to_string().as_bytes())
    }

    pub(super) fn document(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256_of(bytes).to_string();
        self.documents.insert(digest.clone(), (media_type.to_owned(), bytes.to_vec()));
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub(super) fn tag(&mut self, tag: &str, descriptor: &Value) {
        let found = self.documents[descriptor["digest"].as_str().unwrap()].clone();
        self.documents.insert(tag.to_owned(), found);
    }

    pub(super) fn digest_of(&self, tag: &str) -> Digest {
        Digest::sha256_of(&self.documents[tag].1)
    }

    /// The descriptor of the layer all images here share.
    pub(super) fn layer_descriptor() -> Descriptor {
        let layer = Self::layer();
        serde_json::from_value(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": Digest::sha256_of(&layer).to_string(), "size": layer.len(),
        }))
        .unwrap()
    }

    /// The answer of a sound registry.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        let last = request.path.rsplit('/').next().unwrap();
        if request.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        if request.path.contains("/manifests/") {
            return match self.documents.get(last) {
                Some((media_type, bytes)) => Reply::new(200, bytes)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", Digest::sha256_of(bytes).to_string()),
                None => Reply::new(404, error("MANIFEST_UNKNOWN", "manifest unknown")),
            };
        }
        let Some(bytes) = self.blobs.get(last).filter(|_| request.path.contains("/blobs/")) else {
            return Reply::new(404, error("BLOB_UNKNOWN", "blob unknown to registry"));
        };
        let range =
            request.header("range").and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-'));
        match range.map(|from| from.parse::<usize>().unwrap()) {
            Some(from) if from >= bytes.len() => Reply::new(416, ""),
            Some(from) => Reply::new(206, &bytes[from..]).header(
                "Content-Range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
            None => Reply::new(200, bytes),
        }
    }

    /// A sound registry, but for the requests that `fault` answers.
    pub(super) fn serve(
        self,
        fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Server {
        Server::start(move |request, before| {
            fault(request, before).unwrap_or_else(|| self.answer(request))
        })
    }
}

/// The body of an error by the distribution specification.
pub(super) fn error(code: &str, message: &str) -> String {
    json!({ "errors": [{ "code": code, "message": message }] }).to_string()
}

/// An index of one entry.
pub(super) fn nest(contents: &mut Contents, inner: &Value) -> Value {
    let mut inner = inner.clone();
    inner.as_object_mut().unwrap().remove("platform");
    contents.index(OCI_INDEX, &[inner])
}
