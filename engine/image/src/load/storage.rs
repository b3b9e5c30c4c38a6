//! Images in the storage of Podman, Buildah and Skopeo, read by one of those programs: what the
//! storage looks like is their business.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use super::LoadError;

/// Most bytes of a program's complaint that are shown.
const SAID_MAX: u64 = 4096;

/// A program and its words, `NAME` standing for the image.
type Tool = (&'static str, &'static [&'static str]);

/// In this order, the first that is installed. Each writes an archive of Docker's kind.
const TOOLS: [Tool; 3] = [
    (
        "skopeo",
        // The policy has decided already, and by the rules of which file counts.
        &[
            "--insecure-policy",
            "copy",
            "--quiet",
            "containers-storage:NAME",
            "docker-archive:/dev/stdout",
        ],
    ),
    ("podman", &["save", "--quiet", "--format", "docker-archive", "--", "NAME"]),
    ("buildah", &["push", "--quiet", "--", "NAME", "docker-archive:/dev/stdout"]),
];

/// A program that writes an archive.
#[derive(Debug)]
pub(super) struct Saving {
    program: &'static str,
    name: String,
    child: Child,
}

/// Starts the program.
///
/// # Errors
///
/// None is installed, or it cannot be executed.
pub(super) fn start(name: &str) -> Result<Saving, LoadError> {
    for (program, words) in TOOLS {
        let words = words.iter().map(|word| word.replace("NAME", name));
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        log::debug!("executing {command:?}");
        match command.spawn() {
            Ok(child) => return Ok(Saving { program, name: name.to_owned(), child }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LoadError::Execute { program, source }),
        }
    }
    Err(LoadError::NoTool { name: name.to_owned() })
}

impl Saving {
    /// Reads the archive with `take`, then waits for the program. Its failure is the cause of
    /// what `take` says.
    ///
    /// # Errors
    ///
    /// The program's complaint, or what `take` returns.
    pub(super) fn read<T>(
        mut self,
        take: impl FnOnce(&mut dyn Read) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let failed = |source| LoadError::Execute { program: self.program, source };
        let broken = || failed(io::ErrorKind::BrokenPipe.into());
        let mut output = self.child.stdout.take().ok_or_else(broken)?;
        let mut complaints = self.child.stderr.take().ok_or_else(broken)?;
        let listening = std::thread::spawn(move || {
            let mut said = Vec::new();
            let read = complaints.by_ref().take(SAID_MAX).read_to_end(&mut said);
            // The rest, so that the program does not wait for a reader.
            let drained = io::copy(&mut complaints, &mut io::sink());
            if let Err(error) = read.and(drained.map(|_bytes| 0)) {
                log::debug!("not all of its words were read: {error}");
            }
            String::from_utf8_lossy(&said).trim().to_owned()
        });
        let taken = take(&mut output);
        // It ends by this where it was not read to its end.
        drop(output);
        let status = self.child.wait().map_err(failed)?;
        let said = listening.join().unwrap_or_default();
        if status.success() || taken.as_ref().is_err_and(is_ours) {
            return taken;
        }
        let said = if said.is_empty() { status.to_string() } else { said };
        Err(LoadError::Tool { program: self.program, name: self.name.clone(), said })
    }
}

/// Whether reading ended by a failure of this side.
fn is_ours(error: &LoadError) -> bool {
    matches!(error, LoadError::Spool { .. } | LoadError::SpoolFull { .. })
}
