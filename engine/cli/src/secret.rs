//! Passwords: asked for without echo, and kept in memory only.

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use base64::Engine as _;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CliError;

const PASSWORD: &str = "the password";

/// Longest password that is read, in bytes; tokens are some kilobytes long.
const PASSWORD_MAX: u64 = 64 << 10;

/// A name and a password, for one registry.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) registry: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Credentials in memory, in the form of a file of the containers ecosystem: there as long as
/// this value.
pub(crate) struct AuthFile(OwnedFd);

impl AuthFile {
    /// # Errors
    ///
    /// The system has no memory for it.
    pub(crate) fn new(login: &Login) -> io::Result<Self> {
        let pair = format!("{}:{}", login.user, login.password);
        let auth = base64::engine::general_purpose::STANDARD.encode(pair);
        let json = serde_json::json!({ "auths": { &login.registry: { "auth": auth } } });
        let memory = memfd_create("sarus-login", MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(json.to_string().as_bytes()).and_then(|()| file.rewind())?;
        Ok(Self(file.into()))
    }

    /// The path by which this process reads it, and nobody else.
    pub(crate) fn path(&self) -> OsString {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// All of standard input, without the newline at its end.
///
/// # Errors
///
/// Standard input cannot be read, or is empty.
pub(crate) fn read_all() -> Result<String, CliError> {
    let mut text = String::new();
    io::stdin().lock().take(PASSWORD_MAX).read_to_string(&mut text).map_err(failed)?;
    finish(&text)
}

/// A line of standard input; where that is a terminal, after a question and without echo.
///
/// # Errors
///
/// Standard input cannot be read, or ends before.
pub(crate) fn ask_password(registry: &str, terminal: bool) -> Result<String, CliError> {
    let silence = if terminal { Some(Silence::begin().map_err(failed)?) } else { None };
    if terminal {
        to_terminal(&format!("Password at {registry}: "));
    }
    let mut line = String::new();
    io::stdin().lock().take(PASSWORD_MAX).read_line(&mut line).map_err(failed)?;
    drop(silence);
    if terminal {
        to_terminal("\n");
    }
    finish(&line)
}

/// A line of standard input, asked for where somebody reads the question.
///
/// # Errors
///
/// Standard input cannot be read, or ends before.
pub(crate) fn ask_user(registry: &str, terminal: bool) -> Result<String, CliError> {
    let what = "the user name";
    if terminal {
        to_terminal(&format!("User name at {registry}: "));
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|source| CliError::Input { what, source })?;
    match line.trim() {
        "" => Err(CliError::InputEnded { what }),
        user => Ok(user.to_owned()),
    }
}

fn to_terminal(text: &str) {
    let mut stderr = io::stderr().lock();
    // A question that nobody sees is no failure; the answer may come all the same.
    let _unseen = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn failed(source: io::Error) -> CliError {
    CliError::Input { what: PASSWORD, source }
}

fn finish(text: &str) -> Result<String, CliError> {
    let password = text.strip_suffix('\n').unwrap_or(text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(CliError::InputEnded { what: PASSWORD });
    }
    Ok(password.to_owned())
}

/// The terminal does not show what is typed, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.0) {
            log::debug!("the terminal stays silent: {error}");
        }
    }
}
