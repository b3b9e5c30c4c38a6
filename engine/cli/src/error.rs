//! Errors as the user sees them: what failed, one cause a line, then what to do.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use sarus_config::ConfigError;
use sarus_config::hooks::HookError;
use sarus_image::ImageError;

use crate::launch::LaunchError;
use crate::usage::UsageError;

/// Exit status of every failure of the engine, as Docker's.
pub const ENGINE_ERROR: u8 = 125;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The configuration was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A hook file was refused.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The words of the command line were refused.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// An operation on images failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The shim could not take over.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// There is no place for the user's store.
    #[error(
        "cannot tell where your image store is: neither `XDG_DATA_HOME` nor `HOME` is an absolute path"
    )]
    NoHome,
    /// `--centralized-repository` where the site has none.
    #[error("the site has no centralized repository")]
    NoSiteStore,
    /// The working directory is gone or unreadable.
    #[error("cannot tell the working directory")]
    WorkingDirectory {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// `ssh-keygen` where no hook is turned on by `--ssh`.
    #[error("the site has no hook for `sarus run --ssh`")]
    NoSshHook,
    /// A program of the site's could not be executed.
    #[error("cannot execute `{}`", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No running container of that name.
    #[error("no container `{id}` of yours runs on this node")]
    NoContainer {
        /// The name given.
        id: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// A container could not be signalled.
    #[error("cannot send a signal to the container `{id}`")]
    Signal {
        /// The container.
        id: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write to standard output")]
    Output {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Standard input could not be read.
    #[error("cannot read {what} from standard input")]
    Input {
        /// What was to be read.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// `cat` of what has no content.
    #[error("cannot print `{path}` of the image `{image}`: it is {found}, not a regular file")]
    NoContent {
        /// The image.
        image: String,
        /// The path in it.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// `verify` found images that are not sound; which, was told.
    #[error("{count} of {total} images {} not sound", if *count == 1 { "is" } else { "are" })]
    NotSound {
        /// Those that are not.
        count: usize,
        /// Those that were looked at.
        total: usize,
    },
    /// Some of several things failed; which, was told.
    #[error("{count} of {total} files could not be printed")]
    SomeFailed {
        /// Those that failed.
        count: usize,
        /// All.
        total: usize,
    },
    /// `SOURCE_DATE_EPOCH` is no time.
    #[error("`SOURCE_DATE_EPOCH` is `{given}`, expected seconds since 1970, at most 4294967295")]
    SourceDateEpoch {
        /// Its value.
        given: String,
    },
    /// Standard input ended early.
    #[error("standard input ended before {what} was read")]
    InputEnded {
        /// What was to be read.
        what: &'static str,
    },
}

impl CliError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint(),
            Self::Hook(error) => error.hint(),
            Self::Usage(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::NoSshHook => Some(
                "`sarus hooks` lists those there are; CONFIGURATION.md says how one is added"
                    .to_owned(),
            ),
            Self::Program { .. } => Some("`sarus hooks` shows the file that names it".to_owned()),
            Self::NoHome => Some("set `HOME` to your home directory".to_owned()),
            Self::NoSiteStore => Some(
                "the site sets it by `centralizedRepositoryDir` in /etc/sarus/sarus.json"
                    .to_owned(),
            ),
            Self::WorkingDirectory { .. } => Some("change to a directory that exists".to_owned()),
            Self::NoContainer { running, .. } if running.is_empty() => {
                Some("none runs; `sarus ps` lists them".to_owned())
            }
            Self::NoContainer { running, .. } => Some(format!("there are {}", running.join(", "))),
            Self::NoContent { .. } => Some("`sarus ls -l` shows what is there".to_owned()),
            Self::NotSound { .. } => Some(
                "what mends an image is said with its error; a file is to be made or copied anew"
                    .to_owned(),
            ),
            Self::SomeFailed { .. } => None,
            Self::Signal { .. } => Some("`sarus ps` lists those that run".to_owned()),
            Self::SourceDateEpoch { .. } => Some("unset it, or set it to a number".to_owned()),
            Self::Output { .. } | Self::Input { .. } | Self::InputEnded { .. } => None,
        }
    }

    /// Whether the reader of standard output went away, as `head` does: no failure of ours.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn output(source: io::Error) -> Self {
        Self::Output { source }
    }
}

/// The lines of an error: `error:`, a `caused by:` for each source, `hint:`.
///
/// Control characters, which a server may have put into a message, are shown as `?`: they could
/// steer the terminal.
pub fn report(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {}\n", printable(&error.to_string()));
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  caused by: {}", printable(&cause.to_string()));
        source = cause.source();
    }
    if let Some(hint) = hint {
        let _infallible = writeln!(text, "hint: {}", printable(hint));
    }
    text
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}
