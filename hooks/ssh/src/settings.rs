//! What the hook's file and the container's annotations say.

use std::path::PathBuf;

use sarus_hook::{Container, Failure};

use crate::keys::Keys;

/// The port where neither the file nor the user names one, as with Sarus 1.7.
const PORT: u16 = 15263;

/// Ports below are root's.
const PORT_MIN: u16 = 1024;

/// Largest file with public keys that is read, in bytes.
const AUTHORIZED_SIZE_MAX: u64 = 64 << 10;

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `com.hooks.ssh.port`, else `SERVER_PORT_DEFAULT`.
    pub(crate) port: u16,
    /// `DROPBEAR_DIR`
    pub(crate) dropbear: Option<PathBuf>,
    /// `OVERLAY_MOUNT_HOME_SSH`: the container's `~/.ssh` is one of its own.
    pub(crate) hides_home: bool,
    /// `com.hooks.ssh.authorize_ssh_key`: a file with a public key that is let in too.
    pub(crate) authorize: Option<PathBuf>,
    /// `com.hooks.ssh.pidfile_container`
    pub(crate) pidfile_container: Option<PathBuf>,
    /// `com.hooks.ssh.pidfile_host`
    pub(crate) pidfile_host: Option<PathBuf>,
}

impl Settings {
    /// Reads them; `variable` gives a variable of the hook's own.
    ///
    /// # Errors
    ///
    /// A value that is none.
    pub(crate) fn of(
        container: &Container,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let annotated = container.annotation("com.hooks.ssh.port").map(str::to_owned);
        let port = match annotated.or_else(|| variable("SERVER_PORT_DEFAULT")) {
            None => PORT,
            Some(text) => text.parse().ok().filter(|port| *port >= PORT_MIN).ok_or_else(|| {
                let because = format!("it is `{text}`, expected a number from {PORT_MIN} to 65535");
                Failure::new("cannot use the port of the ssh server").because(because).hint(
                    "`--annotation com.hooks.ssh.port=N`, or `SERVER_PORT_DEFAULT` in the hook's file",
                )
            })?,
        };
        let path = |name: &str| match container.annotation(name).map(PathBuf::from) {
            Some(path) if !path.is_absolute() => {
                let because = format!("`{}` is not an absolute path", path.display());
                Err(Failure::new(format!("cannot use the annotation `{name}`")).because(because))
            }
            path => Ok(path),
        };
        Ok(Self {
            port,
            dropbear: variable("DROPBEAR_DIR").map(PathBuf::from),
            hides_home: variable("OVERLAY_MOUNT_HOME_SSH")
                .is_none_or(|text| !text.eq_ignore_ascii_case("false")),
            authorize: path("com.hooks.ssh.authorize_ssh_key")?,
            pidfile_container: path("com.hooks.ssh.pidfile_container")?,
            pidfile_host: path("com.hooks.ssh.pidfile_host")?,
        })
    }

    /// The public keys that are let in. Reads with the rights of the caller.
    ///
    /// # Errors
    ///
    /// Where the file of the annotation cannot be read, or holds no key.
    pub(crate) fn authorized(&self, keys: &Keys) -> Result<String, Failure> {
        let mut authorized = format!("{}\n", keys.public.trim_end());
        if let Some(path) = &self.authorize {
            let failed = || {
                let what = format!("cannot authorize the ssh key `{}`", path.display());
                Failure::new(what).hint("`com.hooks.ssh.authorize_ssh_key` names a public key file")
            };
            let text = crate::keys::read(path, AUTHORIZED_SIZE_MAX)
                .map_err(|error| failed().because(error))?;
            let text = String::from_utf8_lossy(&text).into_owned();
            if text.contains("PRIVATE KEY") || !text.contains("ssh-") && !text.contains("ecdsa-") {
                return Err(failed().because("it holds no public key"));
            }
            authorized += text.trim_end();
            authorized.push('\n');
        }
        Ok(authorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(annotations: &serde_json::Value) -> Container {
        Container::new(None, json!({"root": {"path": "/nonexistent"}, "annotations": annotations}))
    }

    #[test]
    fn the_users_port_comes_before_the_sites() {
        let site = |name: &str| (name == "SERVER_PORT_DEFAULT").then(|| "2000".to_owned());
        let port = |annotations| Settings::of(&container(&annotations), site).map(|s| s.port);
        assert_eq!(port(json!({})).unwrap(), 2000);
        assert_eq!(port(json!({"com.hooks.ssh.port": "3000"})).unwrap(), 3000);
        for wrong in ["22", "x", "70000", ""] {
            let failure = port(json!({"com.hooks.ssh.port": wrong})).unwrap_err().to_string();
            assert!(failure.contains(&format!("`{wrong}`")), "{failure}");
        }
        assert_eq!(Settings::of(&container(&json!({})), |_| None).unwrap().port, PORT);
    }

    #[test]
    fn paths_are_absolute() {
        let annotations = json!({"com.hooks.ssh.pidfile_host": "here"});
        let failure = Settings::of(&container(&annotations), |_| None).unwrap_err().to_string();
        assert!(failure.contains("not an absolute path"), "{failure}");
    }

    #[test]
    fn a_private_key_is_not_authorized() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let annotations = json!({"com.hooks.ssh.authorize_ssh_key": path});
        let settings = Settings::of(&container(&annotations), |_| None).unwrap();
        let keys = Keys {
            host: vec![],
            user: vec![],
            public: "ssh-ed25519 A u".into(),
            host_public: String::new(),
        };
        for (text, want) in [
            ("ssh-rsa B\n", Some("ssh-ed25519 A u\nssh-rsa B\n")),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nssh-\n", None),
            ("", None),
        ] {
            fs_err::write(&path, text).unwrap();
            assert_eq!(settings.authorized(&keys).ok().as_deref(), want, "{text}");
        }
    }
}
