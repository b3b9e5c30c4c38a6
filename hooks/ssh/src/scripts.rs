//! The two small scripts in the container: what a session starts with, and the client. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::PLACE;

/// Variables that are the session's own.
const OWN: [&str; 6] = ["PWD", "OLDPWD", "SHLVL", "_", "TERM", "SHELL"];

/// What the server starts for each session: the container's variables, then the command that was
/// asked for, or a shell.
pub(crate) fn session(variables: &BTreeMap<String, String>) -> String {
    let mut script = "#!/bin/sh\n".to_owned();
    for (name, value) in variables {
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && !OWN.contains(&name.as_str()) && !name.starts_with("SSH_") {
            // Writing to a string cannot fail.
            let _infallible = writeln!(script, "export {name}={}", quoted(value));
        }
    }
    script += "cd \"$HOME\" 2> /dev/null || cd /\n\
               command=${SSH_ORIGINAL_COMMAND-}\n\
               unset SSH_ORIGINAL_COMMAND\n\
               [ -z \"$command\" ] || exec \"${SHELL:-/bin/sh}\" -c \"$command\"\n\
               exec \"${SHELL:-/bin/sh}\"\n";
    script
}

/// `ssh` in the container: the host's client, with the user's key, for the servers of containers.
///
/// All these have one key, so that the client knows the host that it is about to call: nobody else
/// answers in its place. A real server, on the port of those, is taken at its word.
pub(crate) fn client(port: u16, key: &str) -> String {
    let key: Vec<&str> = key.split(' ').take(2).collect();
    let key = key.join(" ");
    format!(
        r#"#!/bin/sh
port={port} host= option=
for word do
  case $option in
    p) port=$word ;;
    '') case $word in
        -p) option=p; continue ;;
        -p*) port=${{word#-p}} ;;
        -[lLRWKIJcmbBoi]) option=other; continue ;;
        -*) ;;
        *) host=$word; break ;;
      esac ;;
  esac
  option=
done
host=${{host##*@}}
host=${{host%%/*}}
trust=
if [ "$port" = 22 ]; then
  trust=-y
elif [ -n "$host" ] && ! grep -qsF "$host {key}" "$HOME/.ssh/known_hosts"; then
  [ -d "$HOME/.ssh" ] || mkdir -p -m 700 "$HOME/.ssh"
  echo "$host {key}" >> "$HOME/.ssh/known_hosts"
fi
exec {PLACE}/dbclient $trust -p {port} -i {PLACE}/id "$@"
"#
    )
}

/// A script that starts a program by its own loader, whatever the image has. The name that it is
/// started with is no path, so that the server does not start itself anew by the image's loader.
pub(crate) fn starter(name: &str, has_loader: bool) -> String {
    let words = start_words(name, has_loader);
    format!("#!/bin/sh\nexec {} \"$@\"\n", words.join(" "))
}

/// The words that start a program.
pub(crate) fn start_words(name: &str, has_loader: bool) -> Vec<String> {
    let program = format!("{PLACE}/bin/{name}");
    if !has_loader {
        return vec![program];
    }
    let library = format!("{PLACE}/lib");
    let loader = format!("{library}/loader");
    let words = [&loader, "--library-path", &library, "--argv0", name, &program];
    words.map(str::to_owned).to_vec()
}

/// A word that a shell takes as it is.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_the_variables_whatever_is_in_them() {
        let awkward = "a'b \"c\" $d `e`\nf\\";
        let variables = [("AWKWARD", awkward), ("PWD", "/x"), ("not-a-name", "y"), ("HOME", "/")];
        let variables = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("session");
        fs_err::write(&path, session(&variables)).unwrap();
        let run = |command: Option<&str>| {
            let mut shell = std::process::Command::new("/bin/sh");
            shell.arg(&path).env("SHELL", "/bin/sh").stdin(std::process::Stdio::null());
            if let Some(command) = command {
                shell.env("SSH_ORIGINAL_COMMAND", command);
            }
            String::from_utf8(shell.output().unwrap().stdout).unwrap()
        };
        let command =
            "printf %s \"$AWKWARD\"; printf ' %s %s' \"$PWD\" \"${SSH_ORIGINAL_COMMAND-gone}\"";
        assert_eq!(run(Some(command)), format!("{awkward} / gone"));
        // So the server says that it was not asked for a command.
        assert_eq!(run(Some("")), "", "a shell that has nothing to read ends");
        assert_eq!(run(None), "", "a shell that has nothing to read ends");
    }

    #[test]
    fn the_client_knows_the_host_that_it_calls() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        // The client itself is not there: what counts is what was written before.
        let script = client(2000, "ssh-ed25519 KEY user");
        let call = |words: &[&str]| {
            let mut shell = std::process::Command::new("/bin/sh");
            shell.args(["-c", &script, "ssh"]).args(words).env("HOME", &home);
            shell.stderr(std::process::Stdio::null());
            shell.output().unwrap();
            fs_err::read_to_string(home.join(".ssh/known_hosts")).unwrap_or_default()
        };
        assert_eq!(call(&["-p", "22", "server", "x"]), "");
        assert_eq!(call(&["-p22", "server"]), "");
        let one = "nid1 ssh-ed25519 KEY\n";
        assert_eq!(call(&["-l", "me", "-t", "nid1", "ls", "-p", "22"]), one);
        assert_eq!(call(&["me@nid1"]), one);
        assert_eq!(call(&["-p", "3000", "me@nid2/3000"]), format!("{one}nid2 ssh-ed25519 KEY\n"));
    }

    #[test]
    fn programs_are_started_by_their_own_loader() {
        assert_eq!(
            start_words("dropbear", true).join(" "),
            "/opt/oci-hooks/ssh/lib/loader --library-path /opt/oci-hooks/ssh/lib --argv0 dropbear \
             /opt/oci-hooks/ssh/bin/dropbear"
        );
        assert_eq!(start_words("dropbear", false), ["/opt/oci-hooks/ssh/bin/dropbear"]);
    }
}
