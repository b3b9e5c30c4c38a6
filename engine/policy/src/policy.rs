//! A policy as a whole: where it is, and which of its rules speaks of an image.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::json::Node;
use crate::parse::{self, Document, Requirement};
use crate::{PolicyError, Subject};

/// Largest policy, in bytes.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// Which images are let in.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file; none if no file says anything.
    file: Option<PathBuf>,
    document: Document,
}

/// The requirements for one image: those of the most specific scope that speaks of it.
#[derive(Debug, Clone)]
pub struct Rule<'a> {
    pub(crate) file: Option<&'a Path>,
    /// `default`, or `TRANSPORT:SCOPE`.
    pub(crate) scope: String,
    pub(crate) requirements: &'a [Requirement],
}

impl Policy {
    /// Lets every image in: what holds where there is no policy file.
    ///
    /// Other engines refuse to work without a file, and their packages install one that says
    /// this. On a machine without them nobody has decided anything; refusing would forbid every
    /// pull, and a user who can run a program can bring a policy of their own anyway. Digests
    /// are verified all the same.
    pub fn accept_anything() -> Self {
        let document =
            Document { default: vec![Requirement::AcceptAnything], transports: [].into() };
        Self { file: None, document }
    }

    /// Parses the text of a policy. `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Json`] with the line; [`PolicyError::Format`] with the keys that lead to
    /// the mistake.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, PolicyError> {
        let node = Node::parse(text).map_err(|error| PolicyError::Json {
            path: path.to_owned(),
            line: error.line(),
            message: without_position(&error),
        })?;
        let document = parse::document(node).map_err(|fault| PolicyError::Format {
            path: path.to_owned(),
            what: fault.to_string(),
        })?;
        Ok(Self { file: Some(path.to_owned()), document })
    }

    /// Reads a policy from a file that must exist.
    ///
    /// # Errors
    ///
    /// [`PolicyError::Read`]; as [`Policy::parse`].
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        log::debug!("signature policy `{}`", path.display());
        Self::parse(&read(path)?, path)
    }

    /// The first of `files` that exists; none if none does.
    ///
    /// # Errors
    ///
    /// A file that exists and cannot be read or parsed; no later one takes its place then.
    pub fn first_of(files: &[PathBuf]) -> Result<Option<Self>, PolicyError> {
        for path in files {
            // A link to nowhere is a policy that is missing, not one that nobody made.
            match std::fs::symlink_metadata(path) {
                Err(error) if is_missing(&error) => {}
                _ => return Self::read(path).map(Some),
            }
        }
        Ok(None)
    }

    /// The rule for an image.
    pub fn rule(&self, subject: &Subject<'_>) -> Rule<'_> {
        let transport = subject.transport();
        let file = self.file.as_deref();
        if let Some(scopes) = self.document.transports.get(transport) {
            for scope in subject.scopes() {
                if let Some(requirements) = scopes.get(&scope) {
                    return Rule { file, scope: format!("{transport}:{scope}"), requirements };
                }
            }
        }
        Rule { file, scope: "default".to_owned(), requirements: &self.document.default }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    let failed = |source| PolicyError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(POLICY_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > POLICY_BYTES_MAX {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    Ok(text)
}

/// The parser's words without the position, which the error has besides.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}
