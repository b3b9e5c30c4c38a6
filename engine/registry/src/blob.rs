//! Blobs as streams: resumed when they break, verified at their end.

use std::io::{self, Read};

use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use reqwest::{Method, StatusCode};
use sarus_oci::manifest::Descriptor;
use sarus_oci::{Hasher, Reference};

use crate::client::{Client, Partial};
use crate::error::{Cause, Chain};
use crate::session::Ask;
use crate::transport::Answer;
use crate::{Notice, RegistryError, failure};

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;
/// New bytes after which breaks are forgotten: a server that breaks after each byte is given up.
const PROGRESS: u64 = 64 << 10;

/// A blob on its way. Counts bytes, does not hash them.
pub(crate) struct Blob {
    client: Client,
    reference: Reference,
    descriptor: Descriptor,
    /// Bytes before the next one read.
    position: u64,
    response: Response,
    host: String,
    /// Breaks since `settled`.
    breaks: u32,
    /// The position when breaks were forgotten last.
    settled: u64,
    /// After an error nothing can be read any more.
    failed: bool,
}

impl Blob {
    pub(crate) fn open(
        client: &Client,
        reference: &Reference,
        descriptor: &Descriptor,
        from: u64,
    ) -> Result<Self, RegistryError> {
        let (answer, begin) = open(client, reference, descriptor, from)?;
        let mut blob = Self {
            client: client.clone(),
            reference: reference.clone(),
            descriptor: descriptor.clone(),
            position: from,
            response: answer.response,
            host: answer.host,
            breaks: 0,
            settled: from,
            failed: false,
        };
        match blob.skip(from - begin) {
            Err(error) if error.is_outage() => blob.reopen(Chain(&error).to_string())?,
            outcome => outcome?,
        }
        Ok(blob)
    }

    /// Reads on; a break leads to a new request for the rest.
    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, RegistryError> {
        loop {
            let reason = match self.response.read(buffer) {
                Ok(0) if self.position == self.descriptor.size || buffer.is_empty() => {
                    return Ok(0);
                }
                // A whole body that is too short will be so again; one of unknown length broke.
                Ok(0) if self.response.content_length().is_some() => {
                    return Err(self.wrong_size(self.position));
                }
                Ok(0) => "it ended too early".to_owned(),
                Ok(count) => {
                    self.position += count as u64;
                    if self.position - self.settled >= PROGRESS {
                        (self.breaks, self.settled) = (0, self.position);
                    }
                    if self.position > self.descriptor.size {
                        return Err(self.wrong_size(self.position));
                    }
                    return Ok(count);
                }
                // All is there; only the end of the transfer was not announced.
                Err(_broken) if self.position == self.descriptor.size => return Ok(0),
                Err(error) => failure::innermost(&error),
            };
            self.reopen(reason)?;
        }
    }

    /// Asks for the rest after a wait, as often as is allowed without progress.
    fn reopen(&mut self, mut reason: String) -> Result<(), RegistryError> {
        let client = self.client.clone();
        let transport = &client.session().transport;
        let retry = transport.options.retry;
        while self.breaks < retry.times {
            transport.wait(self.host.clone(), retry.wait(self.breaks), reason);
            self.breaks += 1;
            match self.reopen_once() {
                // Already repeated as often as is allowed.
                Err(error @ RegistryError::Interrupted { .. }) => return Err(error),
                Err(error) if error.is_outage() => reason = Chain(&error).to_string(),
                Ok(Err(error)) if error.is_outage() => reason = Chain(&error).to_string(),
                Ok(Err(error)) => return Err(error),
                Err(error) => return Err(error),
                Ok(Ok(())) => {
                    let digest = self.descriptor.digest.clone();
                    (transport.options.notify)(&Notice::Resumed { digest, at: self.position });
                    return Ok(());
                }
            }
        }
        Err(RegistryError::Interrupted { host: self.host.clone(), source: Cause(reason) })
    }

    /// The outer error is that of the request, the inner one that of what is read over.
    fn reopen_once(&mut self) -> Result<Result<(), RegistryError>, RegistryError> {
        let wanted = self.position;
        let (answer, begin) = open(&self.client, &self.reference, &self.descriptor, wanted)?;
        (self.response, self.host) = (answer.response, answer.host);
        Ok(self.skip(wanted - begin))
    }

    /// Reads over what a server without ranges sends again.
    fn skip(&mut self, count: u64) -> Result<(), RegistryError> {
        match io::copy(&mut (&mut self.response).take(count), &mut io::sink()) {
            Ok(skipped) if skipped == count => Ok(()),
            Ok(skipped) => Err(self.wrong_size(skipped)),
            Err(error) => {
                let source = Cause(failure::innermost(&error));
                Err(RegistryError::Interrupted { host: self.host.clone(), source })
            }
        }
    }

    fn wrong_size(&self, got: u64) -> RegistryError {
        RegistryError::Size {
            host: self.host.clone(),
            object: self.descriptor.digest.to_string(),
            expected: self.descriptor.size,
            got,
        }
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.read_on(buffer).map_err(|error| {
            self.failed = true;
            io::Error::other(error)
        })
    }
}

/// Asks for a blob from byte `from` on. Also returns where the answer really begins: 0 or `from`.
fn open(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    from: u64,
) -> Result<(Answer, u64), RegistryError> {
    let object = descriptor.digest.to_string();
    if from > descriptor.size {
        let (host, expected) = (reference.registry().to_owned(), descriptor.size);
        return Err(RegistryError::Size { host, object, expected, got: from });
    }
    client.at_any_place(reference, &object, |source| {
        let path = format!("blobs/{}", descriptor.digest);
        let ask = Ask { method: Method::GET, path: &path, accept: None, from, object: &object };
        let answer = match client.session().ask(source, &ask) {
            // A server may refuse ranges altogether.
            Err(RegistryError::Status { status, .. }) if from > 0 && status.starts_with("416") => {
                client.session().ask(source, &Ask { from: 0, ..ask })?
            }
            answer => answer?,
        };
        let headers = answer.response.headers();
        let partial = answer.response.status() == StatusCode::PARTIAL_CONTENT;
        let begin = if partial { range_start(headers).unwrap_or(u64::MAX) } else { 0 };
        if begin != 0 && begin != from {
            let (status, detail) = ("206 Partial Content".to_owned(), "another range".to_owned());
            let host = answer.host;
            return Err(RegistryError::Status { host, status, object: object.clone(), detail });
        }
        if let Some(length) = answer.response.content_length()
            && begin.saturating_add(length) != descriptor.size
        {
            return Err(RegistryError::Size {
                host: answer.host,
                object: object.clone(),
                expected: descriptor.size,
                got: begin.saturating_add(length),
            });
        }
        Ok((answer, begin))
    })
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// Hashes what it reads from the first byte on, and fails at the end if the digest is wrong.
pub(crate) struct Verified {
    blob: Blob,
    hasher: Option<Hasher>,
}

impl Verified {
    pub(crate) fn new(blob: Blob) -> Self {
        let hasher = Some(Hasher::for_digest(&blob.descriptor.digest));
        Self { blob, hasher }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            verify(&self.blob.host, &self.blob.descriptor, hasher).map_err(|error| {
                self.blob.failed = true;
                io::Error::other(error)
            })?;
        }
        Ok(count)
    }
}

fn verify(host: &str, descriptor: &Descriptor, hasher: Hasher) -> Result<(), RegistryError> {
    let got = hasher.finish();
    if got == descriptor.digest {
        return Ok(());
    }
    Err(RegistryError::Digest {
        host: host.to_owned(),
        object: descriptor.digest.to_string(),
        expected: descriptor.digest.clone(),
        got,
    })
}

/// See [`Client::download_rest`].
pub(crate) fn download(
    client: &Client,
    (reference, descriptor): (&Reference, &Descriptor),
    partial: Partial<'_>,
    progress: &dyn Fn(u64),
) -> Result<(), RegistryError> {
    let Partial { sink, mut hasher } = partial;
    if hasher.bytes() > 0 && hasher.bytes() == descriptor.size {
        // A server refuses a range that begins at the end.
        return verify(reference.registry(), descriptor, hasher);
    }
    let mut blob = Blob::open(client, reference, descriptor, hasher.bytes())?;
    let mut buffer = vec![0; BUFFER];
    let unwritten = |source| RegistryError::Sink { digest: descriptor.digest.clone(), source };
    loop {
        let count = blob.read_on(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        sink.write_all(&buffer[..count]).map_err(unwritten)?;
        progress(hasher.bytes());
    }
    sink.flush().map_err(unwritten)?;
    verify(&blob.host, descriptor, hasher)
}
