//! Asks a credential helper: a program `docker-credential-NAME`. The only spawner of processes.
//!
//! Protocol: `get` as argument, the registry on stdin, JSON on stdout, exit status 0.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use crate::credentials_file::DOCKER_KEY;
use crate::{ConfigError, Credentials, Environment};

/// Longest answer that is read, in bytes: as of a token server.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What a helper said.
pub(crate) enum Answer {
    Found(Credentials),
    Nothing,
    /// A configuration copied from a desktop names helpers that no compute node has.
    NotInstalled,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// The file name of a helper.
pub(crate) fn name(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Asks `helper` for the credentials of `key`. Blocks until the helper ends.
pub(crate) fn get(
    environment: &Environment,
    helper: &str,
    key: &str,
) -> Result<Answer, ConfigError> {
    let program = name(helper);
    let failed = |what: String| ConfigError::CredentialHelper { program: program.clone(), what };
    if helper.contains('/') {
        return Err(failed("has a slash in its name".to_owned()));
    }
    let Some(path) = environment.program(&program) else {
        log::debug!("credential helper `{program}` is not installed");
        return Ok(Answer::NotInstalled);
    };
    log::debug!("asking `{}` for `{key}`", path.display());
    let key = if key == sarus_oci::DEFAULT_REGISTRY { DOCKER_KEY } else { key };
    let output = ask(&path, environment, key)
        .map_err(|error| failed(format!("cannot be executed: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("credentials not found") {
            return Ok(Answer::Nothing);
        }
        return Err(failed(format!("failed with {}", output.status)));
    }
    let secret: Secret = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("gave no valid answer (line {})", error.line())))?;
    Ok(match secret.username.as_str() {
        "" => Answer::Nothing,
        "<token>" => Answer::Found(Credentials::identity_token(secret.secret)),
        user => Answer::Found(Credentials::basic(user, &secret.secret)),
    })
}

fn ask(path: &std::path::Path, environment: &Environment, key: &str) -> std::io::Result<Output> {
    let mut child = Command::new(path)
        .arg("get")
        .env_clear()
        .envs(environment.variables())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(key.as_bytes())
    {
        // It may answer without reading; what it says decides.
        log::debug!("credential helper took no input: {error}");
    }
    // Read up to a bound: who says more has it cut, and is told by the closed pipe.
    let mut stdout = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(ANSWER_BYTES_MAX).read_to_end(&mut stdout)?;
    }
    Ok(Output { status: child.wait()?, stdout, stderr: Vec::new() })
}
