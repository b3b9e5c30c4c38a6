//! What a hook's caller writes to its standard input, read with a limit and a time-out.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;
use serde_json::Value;

use crate::Failure;

/// Most that is read of standard input, in bytes.
pub const INPUT_SIZE_MAX: usize = 16 << 20;

/// Longest time that the caller may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state of a container:
/// <https://github.com/opencontainers/runtime-spec/blob/v1.0.2/runtime.md#state>.
#[derive(Debug, Clone, Deserialize)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: String,
    /// The container's first process, as the runtime sees it; none before it exists and after it
    /// ended.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// The container's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Either of the two documents a hook may be given.
#[derive(Debug)]
pub(crate) enum Input {
    /// A runtime's, at an OCI stage.
    State(State),
    /// The configuration of a bundle, at the stage `precreate`.
    Configuration(Value),
}

/// Reads and parses standard input.
pub(crate) fn read() -> Result<Input, Failure> {
    let failed = || Failure::new("cannot read the container's state from standard input");
    let text = read_bounded(&mut std::io::stdin().lock()).map_err(|e| failed().because(e))?;
    parse(&text).map_err(|reason| {
        failed().because(reason).hint("a hook is started by a container engine, not by hand")
    })
}

fn read_bounded(input: &mut (impl Read + AsFd)) -> std::io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).unwrap_or_default();
        let mut waited = [PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut waited, Some(&limit)))? == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match input.read(&mut chunk)? {
            0 => return Ok(text),
            read => text.extend_from_slice(&chunk[..read]),
        }
        if text.len() > INPUT_SIZE_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
    }
}

fn parse(text: &[u8]) -> Result<Input, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // Only a state has an id, only a configuration a process or a root.
    if value.get("id").is_some() {
        let state: State = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if !state.bundle.is_absolute() {
            return Err(format!("the bundle's path `{}` is not absolute", state.bundle.display()));
        }
        return Ok(Input::State(state));
    }
    if value.get("root").is_some() || value.get("process").is_some() {
        return Ok(Input::Configuration(value));
    }
    Err("it is neither a container's state nor a bundle's configuration".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_and_a_configuration_are_told_apart() {
        let state = br#"{"ociVersion":"1.0.2","id":"x","status":"creating","pid":7,"bundle":"/b",
            "annotations":{"a":"b"}}"#;
        assert!(matches!(parse(state), Ok(Input::State(State { pid: Some(7), .. }))));
        let configuration = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#;
        assert!(matches!(parse(configuration), Ok(Input::Configuration(_))));
        for bad in
            [&b""[..], b"{}", b"[]", br#"{"id":"x"}"#, br#"{"id":"x","status":"","bundle":"b"}"#]
        {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn no_more_is_read_than_the_limit() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![b' '; INPUT_SIZE_MAX + 1]).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let error = read_bounded(&mut file).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    }
}
