//! What can be wrong with the words of a command line beyond what their table says.

use std::path::PathBuf;

use sarus_launch::RequestError;

/// Why a command line was refused. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A value is not what its option takes.
    #[error("`{option}`: `{given}` is given, expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// The value, or the part of it that is wrong.
        given: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// `exec` without a command.
    #[error("`sarus exec` needs a container and a command")]
    NoExecCommand,
    /// `load` without a file, on a terminal.
    #[error("`sarus load` needs a file, or an archive on standard input, which is a terminal")]
    NoArchive,
    /// More words for `load` than a file and a name.
    #[error("`sarus load` cannot use `{given}`: expected a file and at most one name")]
    LoadName {
        /// The word.
        given: String,
    },
    /// Double quotes that do not enclose a field.
    #[error("`--mount {given}`: the double quotes do not enclose a whole field")]
    Quotes {
        /// The value.
        given: String,
    },
    /// A key that the option does not know.
    #[error("`{option} {given}`: unknown key `{key}`, expected {expected}")]
    UnknownKey {
        /// The option.
        option: &'static str,
        /// The value.
        given: String,
        /// The key.
        key: String,
        /// The keys that there are.
        expected: &'static str,
    },
    /// A key without the value that it needs.
    #[error("`{option} {given}`: `{key}` has no value")]
    NoValue {
        /// The option.
        option: &'static str,
        /// The value.
        given: String,
        /// The key.
        key: String,
    },
    /// A key given twice.
    #[error("`{option} {given}`: `{key}` is given twice")]
    KeyTwice {
        /// The option.
        option: &'static str,
        /// The value.
        given: String,
        /// The key.
        key: String,
    },
    /// A key that must be given is not.
    #[error("`{option} {given}`: `{key}=` is missing")]
    MissingKey {
        /// The option.
        option: &'static str,
        /// The value.
        given: String,
        /// The key.
        key: &'static str,
    },
    /// A key that another type of mount has.
    #[error("`--mount {given}`: a mount of type `{kind}` has no {key}")]
    UnfitKey {
        /// The value.
        given: String,
        /// The key.
        key: &'static str,
        /// The type of the mount.
        kind: &'static str,
    },
    /// RFC 7617, section 2: a colon ends the user name.
    #[error("the user name `{given}` has a colon, which no registry takes")]
    UserWithColon {
        /// The user name.
        given: String,
    },
    /// A destination that is not absolute.
    #[error("`{option}`: the destination `{given}` is not an absolute path")]
    RelativeDestination {
        /// The option.
        option: &'static str,
        /// The destination.
        given: String,
    },
    /// Two different mounts at one place.
    #[error("two of `--mount`, `-v` and `--tmpfs` have the destination `{}`", destination.display())]
    DestinationTwice {
        /// The destination.
        destination: PathBuf,
    },
    /// A volume of Docker's kind, which does not exist here.
    #[error("`-v {given}`: `{name}` is the name of a volume, expected a path of the host")]
    NamedVolume {
        /// The value.
        given: String,
        /// The name.
        name: String,
    },
    /// A variable without a name.
    #[error("`{given}` sets a variable without a name")]
    VariableName {
        /// What was given.
        given: String,
    },
    /// A file of variables could not be read.
    #[error("cannot read the file of variables `{}`", path.display())]
    ReadEnvFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A line of a file of variables is none.
    #[error("`{}` line {line}: `{given}` sets no variable: expected NAME=VALUE or NAME", path.display())]
    EnvFileLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line's text.
        given: String,
    },
    /// Two options that exclude each other.
    #[error("`{one}` and `{other}` exclude each other")]
    Conflict {
        /// One option.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Nothing to run.
    #[error("`{image}` has no default command, and none is given")]
    NoCommand {
        /// The image.
        image: String,
    },
    /// What the launch request does not hold.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl UsageError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoCommand { image } => format!("name one: `sarus run {image} COMMAND`"),
            Self::NamedVolume { name, .. } => {
                format!("for a directory below the current one, write `./{name}`")
            }
            Self::DestinationTwice { .. } => "keep the one that is meant".to_owned(),
            Self::Quotes { .. } => {
                "as in CSV: `--mount 'type=bind,\"source=/a,b\",destination=/c'`".to_owned()
            }
            Self::ReadEnvFile { .. } => "give `--env-file` a file that you can read".to_owned(),
            Self::EnvFileLine { .. } => {
                "a line is `NAME=VALUE`, `NAME` for the host's value, or a comment after `#`"
                    .to_owned()
            }
            Self::Conflict { .. } => "an SSH server needs processes of its own".to_owned(),
            Self::NoExecCommand => "`sarus ps` lists the containers that run".to_owned(),
            Self::Value { option: "--signal", .. } => {
                "`sarus kill -s TERM CONTAINER`; without `-s` it is `KILL`".to_owned()
            }
            _ => "`sarus help run` describes the options".to_owned(),
        };
        Some(text)
    }
}
