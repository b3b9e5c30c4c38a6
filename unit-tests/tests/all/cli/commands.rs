//! Whole commands: words in, standard output, standard error and status out.
//!
//! Each runs in a process of its own: so it has the environment, home and standard streams that
//! the test gives it, and no other test sees them.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::packed::{Packed, gzip, tar};

/// The program `sarus`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sarus-command");

/// A user with an empty home.
pub(super) struct User {
    home: TempDir,
    variables: Vec<(String, OsString)>,
    program: PathBuf,
}

/// What a command said.
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) status: i32,
}

impl User {
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, variables: Vec::new(), program: PROGRAM.into() }
    }

    fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// A user for whom a registry is one that speaks HTTP.
    pub(super) fn of(registry: &Registry) -> Self {
        let user = Self::new();
        user.put(
            ".config/containers/registries.conf",
            &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host),
        );
        user
    }

    pub(super) fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
        fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(super) fn sarus(&self, words: &[&str]) -> Said {
        self.sarus_with(words, "")
    }

    fn sarus_with(&self, words: &[&str], input: &str) -> Said {
        let mut command = Command::new(&self.program);
        command.arg0("sarus").args(words).env_clear().env("HOME", self.home.path());
        let kept = ["PATH", "LLVM_PROFILE_FILE"];
        command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads nothing may have ended before.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        let output = child.wait_with_output().unwrap();
        Said {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            status: output.status.code().unwrap(),
        }
    }

    /// The output of a command that succeeds.
    pub(super) fn output(&self, words: &[&str]) -> String {
        let said = self.sarus(words);
        assert_eq!(said.status, 0, "{words:?}: {}", said.err);
        said.out
    }

    /// The message of a command that fails, with status 125 and nothing on standard output.
    pub(super) fn failure(&self, words: &[&str]) -> String {
        let said = self.sarus(words);
        assert_eq!((said.status, said.out.as_str()), (125, ""), "{words:?}");
        said.err
    }

    pub(super) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.output(words)).unwrap()
    }
}

/// A registry with one image under every name, over HTTP; `locked`: for user `ada` only.
pub(super) struct Registry {
    pub(super) host: String,
    requests: Arc<Mutex<Vec<String>>>,
    pub(super) image: Packed,
}

impl Registry {
    pub(super) fn serve(image: Packed, locked: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, served) = (Arc::clone(&requests), image.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that left in the middle is no failure of the test.
                drop(converse(stream, &served, locked, &log));
            }
        });
        Self { host, requests, image }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn converse(
    mut stream: TcpStream,
    image: &Packed,
    locked: bool,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = first.split(' ').nth(1).unwrap_or_default();
    log.lock().unwrap().push(first.clone());
    // `ada:open sesame`
    let granted = headers.iter().any(|line| line.ends_with("Basic YWRhOm9wZW4gc2VzYW1l"));
    let digest = |text: &str| sarus_oci::Digest::parse(text).ok();
    let manifest = image.manifest_bytes();
    let blob = path.split_once("/blobs/").and_then(|(_, text)| image.blobs.get(&digest(text)?));
    let (status, extra, body) = if locked && !granted {
        ("401 .", "WWW-Authenticate: Basic realm=\"tests\"\r\n".to_owned(), Vec::new())
    } else if let Some((_, wanted)) = path.split_once("/manifests/") {
        match digest(wanted) {
            Some(other) if other != image.digest() => ("404 .", String::new(), Vec::new()),
            _ if path.contains("absent") => ("404 .", String::new(), Vec::new()),
            _ => {
                let kind = "application/vnd.oci.image.manifest.v1+json";
                let digest = image.digest();
                let extra = format!("Content-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n");
                ("200 OK", extra, manifest)
            }
        }
    } else if let Some(blob) = blob {
        ("200 OK", String::new(), blob.clone())
    } else if path == "/v2/" {
        ("200 OK", String::new(), b"{}".to_vec())
    } else {
        ("404 .", String::new(), Vec::new())
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\n{extra}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if !first.starts_with("HEAD") {
        stream.write_all(&body)?;
    }
    Ok(())
}

fn hello() -> Registry {
    Registry::serve(Packed::simple("hello"), false)
}

// Words.

#[test]
fn a_word_that_is_no_command_gets_the_similar_one_as_advice() {
    for (words, want) in [
        (
            &["imges"][..],
            "error: unrecognized subcommand `imges`\n\
             hint: a similar subcommand exists: `images`; `sarus help` describes what there is\n",
        ),
        (
            &["images", "--digest"],
            "error: unexpected argument `--digest` found\n\
             hint: a similar argument exists: `--digests`; `sarus help images` describes what there is\n",
        ),
        (
            &["--frobnicate"],
            "error: unexpected argument `--frobnicate` found\n\
             hint: `sarus help` describes what there is\n",
        ),
    ] {
        assert_eq!(User::new().failure(words), want);
    }
    let error = User::new().failure(&["run"]);
    assert!(
        error.starts_with("error: the following required arguments were not provided"),
        "{error}"
    );
    assert!(error.ends_with("hint: `sarus help run` describes what there is\n"), "{error}");
    let error = User::new().failure(&[]);
    assert!(error.contains("Usage: sarus"), "{error}");
}

#[test]
fn help_and_version_are_data() {
    let user = User::new();
    let help = user.output(&["help"]);
    let commands = [
        "pull",
        "load",
        "run",
        "images",
        "rmi",
        "prune",
        "inspect",
        "export",
        "hooks",
        "login",
        "logout",
        "completion",
        "version",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        let of_command = user.output(&["help", command]);
        assert!(of_command.contains(&format!("Usage: sarus {command}")), "{of_command}");
        assert_eq!(user.output(&[command, "--help"]), of_command);
    }
    assert!(!help.contains("unpack-image"), "not for users");
    let version = user.output(&["version"]);
    assert!(version.starts_with("sarus 2."), "{version}");
    assert_eq!(user.output(&["--version"]), version.lines().next().unwrap().to_owned() + "\n");
    let json = user.json(&["version", "--format", "json"]);
    assert_eq!(json["launchRequest"], sarus_launch::REQUEST_VERSION);
    assert_eq!(json["store"], sarus_store::METADATA_VERSION);
}

#[test]
fn there_is_a_completion_for_each_shell() {
    let user = User::new();
    for (shell, want) in
        [("bash", "complete -F"), ("zsh", "#compdef sarus"), ("fish", "complete -c")]
    {
        let script = user.output(&["completion", shell]);
        assert!(script.contains(want), "{shell}");
        assert!(script.contains("sarus"));
    }
}

#[test]
fn commands_of_a_user_without_a_home_say_what_to_set() {
    let user = User::new().with("HOME", "");
    let error = user.failure(&["images"]);
    assert!(error.starts_with("error: cannot tell where your image store is"), "{error}");
    assert!(error.ends_with("hint: set `HOME` to your home directory\n"), "{error}");
    for words in
        [&["images", "--centralized-repository"][..], &["rmi", "--centralized-repository", "x"]]
    {
        let error = User::new().failure(words);
        assert!(error.starts_with("error: the site has no centralized repository\n"), "{error}");
    }
}

#[test]
fn a_configuration_that_is_not_valid_is_named_with_its_line() {
    let user = User::new();
    user.put(".config/sarus/sarus.json", "{\n  \"stordir\": 1\n}");
    for words in [&["images"][..], &["pull", "x"], &["run", "x"], &["hooks"], &["rmi", "x"]] {
        let error = user.failure(words);
        assert!(error.contains("sarus.json") && error.contains("line 2"), "{words:?}: {error}");
    }
}

// Images.

#[test]
fn an_image_is_pulled_listed_inspected_exported_and_removed() {
    let registry = hello();
    let user = User::of(&registry);
    let name = registry.name("team/app:1");
    let digest = registry.image.digest().to_string();
    let said = user.sarus(&["pull", &name]);
    assert_eq!((said.status, said.out), (0, format!("{name}  {digest}\n")), "{}", said.err);
    assert!(said.err.contains(&format!("\n{name}: 1 layer, ")), "{}", said.err);
    assert!(said.err.contains(" unpacked) in "), "{}", said.err);
    let again = user.sarus(&["pull", &name]);
    assert!(again.err.ends_with(&format!("\n{name}: up to date\n")), "{}", again.err);
    let quiet = user.sarus(&["pull", "--quiet", &name]);
    assert_eq!((quiet.out, quiet.err), (format!("{digest}\n"), String::new()));

    let id = registry.image.config_digest();
    let list = user.output(&["images", "--digests"]);
    assert!(list.starts_with("REPOSITORY"), "{list}");
    assert!(list.lines().nth(1).unwrap().starts_with(&registry.name("team/app   1     sha256:")));
    assert_eq!(user.output(&["images", "-q"]), format!("{}\n", &id.hex()[..12]));
    assert_eq!(user.output(&["images", "-q", "--no-trunc"]), format!("{id}\n"));
    let json = user.json(&["images", "--format=json"]);
    assert_eq!(json[0]["digest"], digest.as_str());
    let record = user.json(&["inspect", &name, &id.hex()[..12]]);
    assert_eq!(record[0], record[1]);
    assert_eq!(record[0]["names"][0], name.as_str());
    assert_eq!(record[0]["config"]["Cmd"][0], "sh");
    let squashfs = PathBuf::from(record[0]["squashfs"].as_str().unwrap());
    assert!(squashfs.starts_with(record[0]["store"].as_str().unwrap()) && squashfs.is_file());

    assert_eq!(user.output(&["export", &name, "out.sqsh"]), "");
    let error = user.failure(&["export", &name, "out.sqsh"]);
    assert_eq!(
        error,
        "error: cannot export to `out.sqsh`: the file exists\nhint: `--force` replaces it\n"
    );
    user.output(&["export", "--force", &name, "out.sqsh"]);
    fs::DirBuilder::new().create(user.path("tree")).unwrap();
    user.output(&["unpack-image", "out.sqsh", "tree"]);
    assert_eq!(fs::read(user.path("tree/hello")).unwrap(), b"hello");

    let said = user.sarus(&["rmi", &name]);
    assert_eq!(said.out, format!("Untagged: {name}\nDeleted: {digest}\n"));
    assert!(said.err.contains("is kept for ") && said.err.contains("--force"), "{}", said.err);
    assert!(squashfs.exists(), "for the jobs that use it");
    assert_eq!(user.output(&["images"]).lines().count(), 1);
    user.output(&["rmi", "--force"]);
    assert!(!squashfs.exists());
}

#[test]
fn a_root_file_system_is_loaded_by_every_way_to_name_it() {
    let user = User::new();
    let archive = String::from_utf8(tar(&[("etc/name", b"value")])).unwrap();
    user.put("root fs.tar", &archive);
    let mut digests = Vec::new();
    for (words, name) in [
        (&["load", "root fs.tar"][..], "localhost/root-fs:latest"),
        (&["load", "-i", "root fs.tar"], "localhost/root-fs:latest"),
        (&["load", "root fs.tar", "a"], "docker.io/library/a:latest"),
        (&["load", "--input", "root fs.tar", "quay.io/a/b:1"], "quay.io/a/b:1"),
        (&["load", "--format", "rootfs-tar", "-i", "-", "c"], "docker.io/library/c:latest"),
        (&["load", "-", "d:2"], "docker.io/library/d:2"),
    ] {
        let said = user.sarus_with(words, &archive);
        let (found, digest) = said.out.trim_end().split_once("  ").unwrap_or_default();
        assert_eq!((found, said.status), (name, 0), "{words:?}: {}", said.err);
        digests.push(digest.to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
    let quiet = user.sarus(&["load", "--quiet", "root fs.tar"]);
    assert_eq!((quiet.out.trim(), quiet.err.as_str()), (digests[0].as_str(), ""));
    // As Sarus 1.7 called it.
    let explained = user.failure(&["run", "--pull=never", "load/library/none", "true"]);
    assert!(explained.contains("no image `docker.io/load/library/none:latest`"), "{explained}");
    assert_eq!(user.json(&["images", "--format", "json"]).as_array().unwrap().len(), 5);
}

#[test]
fn words_of_a_load_that_make_no_sense_are_refused_with_what_is_expected() {
    let user = User::new();
    for (words, want) in [
        (&["load", "a.tar", "b", "c"][..], "cannot use `c`"),
        (&["load", "-i", "a.tar", "b", "c"], "cannot use `c`"),
        (&["load", "--format", "zip", "a.tar"], "`docker-archive`, `oci-archive`"),
        (&["load", "a.tar", "UPPER"], "UPPER"),
        (&["load", "missing.tar"], "cannot open `missing.tar`"),
        (&["pull", "oci-archive:missing.tar:v1"], "cannot open `missing.tar`"),
        (&["load"], "`standard input` is no image: it is empty"),
    ] {
        let error = user.failure(words);
        assert!(error.contains(want), "{words:?}: {error}");
        assert_eq!(error.matches("error: ").count(), 1, "{error}");
    }
}

#[test]
fn an_image_that_is_not_there_says_so_in_every_command() {
    let registry = hello();
    let user = User::of(&registry);
    for words in [&["inspect", "debian"][..], &["rmi", "debian"], &["export", "debian", "x"]] {
        assert_eq!(
            user.failure(words),
            "error: there is no image `debian` in the store\n\
             hint: `sarus images` lists what is there, `sarus pull` gets more\n"
        );
    }
    let name = registry.name("absent");
    let error = user.failure(&["pull", &name]);
    assert!(error.contains(&format!("\nerror: `{}` has no `", registry.host)), "{error}");
    assert!(!user.path(".local").exists(), "nothing was made");
    let error = user.failure(&["pull", "UPPER"]);
    assert!(error.starts_with("error: `UPPER`") || error.contains("UPPER"), "{error}");
}

#[test]
fn a_damaged_image_is_a_warning_and_hides_no_other() {
    let registry = hello();
    let user = User::of(&registry);
    user.output(&["pull", &registry.name("a")]);
    let other = Registry::serve(Packed::simple("other"), false);
    user.put(
        ".config/containers/registries.conf",
        &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", other.host),
    );
    user.output(&["pull", &other.name("b")]);
    let directory = format!("sha256-{}", other.image.digest().hex());
    user.put(&format!(".local/share/sarus/images/v1/{directory}/image.json"), "{");
    let said = user.sarus(&["images"]);
    assert_eq!((said.status, said.out.lines().count()), (0, 2));
    assert!(
        said.err.starts_with("warning: `") && said.err.contains("image.json` is damaged"),
        "{}",
        said.err
    );
    assert_eq!(said.err.lines().count(), 1);
}

#[test]
fn a_layer_that_is_none_is_an_error_with_its_causes_and_leaves_nothing() {
    let image = Packed::of_blobs(&[gzip(b"no archive")], &[], &serde_json::json!({}));
    let registry = Registry::serve(image, false);
    let user = User::of(&registry);
    let error = user.failure(&["pull", &registry.name("odd")]);
    assert!(error.contains(": 1 layer, "), "{error}");
    assert!(error.contains("error: cannot convert the image `"), "{error}");
    assert!(error.contains("\n  caused by: layer `sha256:"), "{error}");
    assert!(error.contains("\nhint: "), "{error}");
    let store = user.path(".local/share/sarus");
    for folder in ["tmp", "images/v1", "names"] {
        assert!(
            fs::read_dir(store.join(folder)).is_ok_and(|mut found| found.next().is_none())
                || !store.join(folder).exists(),
            "{folder}"
        );
    }
}

#[test]
fn the_time_of_the_image_can_be_set_and_must_be_a_number() {
    let registry = hello();
    let error = User::of(&registry)
        .with("SOURCE_DATE_EPOCH", "now")
        .failure(&["pull", &registry.name("a")]);
    assert!(error.starts_with("error: `SOURCE_DATE_EPOCH` is `now`"), "{error}");
    let user = User::of(&registry).with("SOURCE_DATE_EPOCH", "7");
    user.output(&["pull", "--temp-dir", "/tmp", &registry.name("a")]);
    let file = user.json(&["inspect", &registry.name("a")])[0]["squashfs"].clone();
    let file = fs::File::open(file.as_str().unwrap()).unwrap();
    assert_eq!(sarus_squash::probe(&file).unwrap().time, 7);
}

// Credentials.

#[test]
fn credentials_of_the_command_line_are_used_and_never_shown() {
    let registry = Registry::serve(Packed::simple("hello"), true);
    let user = User::of(&registry);
    let name = registry.name("private");
    let ways: [(&[&str], &str); 3] = [
        (&["--debug", "pull", "-u", "ada", "--password-stdin", &name], "open sesame\n"),
        (&["--debug", "pull", "--username=ada", &name], "open sesame\nrest"),
        (&["--debug", "pull", "--login", &name], "ada\nopen sesame\n"),
    ];
    for (words, input) in ways {
        let said = user.sarus_with(words, input);
        assert_eq!(said.status, 0, "{words:?}: {}", said.err);
        for secret in ["open sesame", "YWRhOm9wZW4gc2VzYW1l"] {
            assert!(!said.err.contains(secret) && !said.out.contains(secret), "{}", said.err);
        }
    }
    let said =
        user.sarus_with(&["--debug", "pull", "-u", "ada", "--password-stdin", &name], "wrong-one");
    assert_eq!(said.status, 125);
    assert!(
        said.err.contains("the credentials from the command line were not accepted"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("wrong-one"), "{}", said.err);
    let error = user.failure(&["pull", &name]);
    assert!(error.contains("no credentials were given"), "{error}");
    for (words, input, want) in [
        (&["pull", "--login", &name][..], "", "the user name"),
        (&["pull", "--login", &name], "ada\n", "the password"),
        (&["pull", "-u", "ada", "--password-stdin", &name], "\n", "the password"),
    ] {
        let said = user.sarus_with(words, input);
        assert_eq!(said.status, 125);
        assert!(
            said.err.contains(&format!("standard input ended before {want} was read")),
            "{}",
            said.err
        );
    }
}

#[test]
fn a_login_is_kept_when_the_registry_accepts_it_and_ends_with_logout() {
    let registry = Registry::serve(Packed::simple("hello"), true);
    let user = User::of(&registry);
    let login = ["login", "-u", "ada", "--password-stdin", &registry.host];
    let said = user.sarus_with(&login, "wrong");
    assert_eq!(said.status, 125, "{}", said.err);
    assert!(!user.path(".config/containers/auth.json").exists());
    let said = user.sarus_with(&login, "open sesame");
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(
        said.err.starts_with(&format!("logged in to {}: kept in `", registry.host)),
        "{}",
        said.err
    );
    let mode = fs::metadata(user.path(".config/containers/auth.json")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    user.output(&["pull", &registry.name("private")]);
    let said = user.sarus(&["logout", &registry.host]);
    assert!(said.err.starts_with(&format!("logged out of {}", registry.host)), "{}", said.err);
    let said = user.sarus(&["logout", &registry.host]);
    assert_eq!(said.err, format!("not logged in to {}\n", registry.host));
    user.failure(&["pull", &registry.name("private")]);

    let runtime = user.path("run");
    fs::DirBuilder::new().create(&runtime).unwrap();
    let user = user.with("XDG_RUNTIME_DIR", runtime);
    let said = user.sarus_with(&["login", &registry.host], "ada\nopen sesame\n");
    assert!(said.err.contains("note: that file ends with your login session"), "{}", said.err);
}

// Hooks.

const HOOK: &str = r#"{"version":"1.0.0","hook":{"path":"/bin/true","args":["true","x"]},
    "when":{"annotations":{"^com.hooks.mpi.enabled$":"^true$"}},"stages":["createContainer"]}"#;
const BY_COMMAND: &str = r#"{"version":"1.0.0","hook":{"path":"/bin/true"},
    "when":{"commands":["sh$"]},"stages":["createRuntime","poststop"]}"#;
const BY_MOUNT: &str = r#"{"version":"1.0.0","hook":{"path":"/bin/true"},
    "when":{"hasBindMounts":true},"stages":["prestart"]}"#;

fn user_with_hooks(registry: &Registry) -> User {
    let user = User::of(registry);
    user.put("hooks.d/10-mpi.json", HOOK);
    user.put("hooks.d/20-sh.json", BY_COMMAND);
    user.put("hooks.d/30-mounts.json", BY_MOUNT);
    let hooks = user.path("hooks.d");
    user.put(".config/sarus/sarus.json", &format!("{{\"hooksDir\": {hooks:?}}}"));
    user
}

#[test]
fn hooks_are_listed_with_whether_each_would_run_and_why() {
    let registry = hello();
    let user = user_with_hooks(&registry);
    let runs = |words: &[&str]| -> Vec<bool> {
        let mut all = vec!["hooks", "--format=json"];
        all.extend(words);
        let json = user.json(&all);
        json.as_array().unwrap().iter().map(|hook| hook["runs"].as_bool().unwrap()).collect()
    };
    assert_eq!(runs(&[]), [false, false, false]);
    assert_eq!(runs(&["--mpi"]), [true, false, false]);
    assert_eq!(runs(&["--annotation", "com.hooks.mpi.enabled=true"]), [true, false, false]);
    assert_eq!(runs(&["debian", "/bin/sh"]), [false, true, false]);
    assert_eq!(runs(&["-v", "/a:/b"]), [false, false, true]);
    assert_eq!(runs(&["--mount", "type=bind,src=/a,dst=/b"]), [false, false, true]);
    assert_eq!(runs(&["--mount", "type=tmpfs,dst=/b"]), [false, false, false]);

    let list = user.output(&["hooks", "--mpi"]);
    let mut lines = list.lines();
    let words: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["NAME", "PATH", "STAGES", "RUNS", "REASON"]);
    let words: Vec<&str> = lines.next().unwrap().split_whitespace().take(4).collect();
    assert_eq!(words, ["10-mpi", "/bin/true", "createContainer", "yes"]);
    assert!(lines.all(|line| line.split_whitespace().nth(3) == Some("no")));

    let name = registry.name("app");
    let error = user.failure(&["hooks", &name]);
    assert!(error.starts_with("error: there is no image `"), "{error}");
    user.output(&["pull", &name]);
    assert_eq!(runs(&[&name]), [false, true, false], "the image's own command is sh");
    user.output(&["export", &name, "a.sqsh"]);
    assert_eq!(runs(&["./a.sqsh"]), [false, false, false], "a file has no command of its own");
}

#[test]
fn a_hook_file_that_is_not_valid_is_named_with_line_and_key() {
    let registry = hello();
    let user = user_with_hooks(&registry);
    user.put(
        "hooks.d/15-bad.json",
        "{\n\"version\":\"1.0.0\",\n\"hook\":{\"path\":7},\"when\":{}}",
    );
    let error = user.failure(&["hooks"]);
    assert!(error.contains("15-bad.json") && error.contains("line 3"), "{error}");
    assert!(error.contains("hook.path"), "{error}");
    let error = user.failure(&["hooks", "--mount", "nonsense"]);
    assert!(error.starts_with("error: "), "{error}");
}

// Run.

/// A user whose `sarus` has a shim beside it that prints its words and the request.
fn user_with_shim(registry: &Registry) -> (User, TempDir) {
    let mut user = User::of(registry);
    let own = Path::new(PROGRAM);
    let place = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
    user.program = place.path().join("sarus");
    fs::hard_link(own, &user.program).unwrap();
    let shim = place.path().join("sarus-shim");
    let script = "#!/bin/sh\necho \"$1 $2\" >&2\ncat /proc/self/fd/\"$3\"\nexit 42\n";
    fs::File::create(&shim).unwrap().write_all(script.as_bytes()).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    (user, place)
}

fn request(said: &Said) -> Value {
    assert_eq!(said.status, 42, "{}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn a_run_pulls_the_missing_image_and_gives_way_to_the_shim() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    user.put("vars", "A=file\n");
    let said = user.sarus(&["run", "--env-file", "vars", "-e", "B=1", &name, "ls", "-l"]);
    assert!(
        said.err.contains(": 1 layer, ") && said.err.ends_with("run --request-fd\n"),
        "{}",
        said.err
    );
    let json = request(&said);
    assert_eq!(json["command"]["args"], serde_json::json!(["ls", "-l"]));
    assert_eq!(json["env"], serde_json::json!(["A=file", "B=1"]));
    assert_eq!(json["image"]["name"], name.as_str());
    assert_eq!(json["image"]["digest"], registry.image.digest().to_string());
    assert_eq!(json["image"]["env"], serde_json::json!(["A=1"]));
    assert!(Path::new(json["image"]["squashfs"].as_str().unwrap()).is_file());
    registry.requests();
    let said = user.sarus(&["run", &name]);
    assert_eq!(request(&said)["command"]["args"], serde_json::json!(["sh"]));
    assert_eq!(registry.requests(), [""; 0], "with the image there, nobody is asked");
}

#[test]
fn an_export_replaces_no_device() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    user.output(&["pull", "--quiet", &name]);
    user.put("file", "old");
    let link = user.path("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    let error = user.failure(&["export", "--force", &name, link.to_str().unwrap()]);
    assert!(error.contains("it is no regular file"), "{error}");
    assert!(link.is_symlink());
    user.output(&["export", "--force", &name, "file"]);
}

#[test]
fn a_run_takes_an_id_as_lists_show_it() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    let digest = user.output(&["pull", "--quiet", &name]).trim().to_owned();
    let id = user.output(&["images", "-q"]).trim().to_owned();
    registry.requests();
    let part = digest.get(..14).unwrap();
    for given in [id.as_str(), &digest, part, digest.strip_prefix("sha256:").unwrap()] {
        for pull in ["--pull=missing", "--pull=never", "--pull=newer"] {
            let json = request(&user.sarus(&["run", pull, given]));
            assert_eq!(json["image"]["digest"], digest, "{given}");
            assert_eq!(json["image"]["name"], given);
        }
    }
    let missing = "0".repeat(64);
    for given in [missing.as_str(), "sha256:0000"] {
        let error = user.failure(&["run", given]);
        assert!(error.starts_with(&format!("error: there is no image `{given}` in the store")));
    }
    assert_eq!(registry.requests(), [""; 0], "no registry knows ids");
    // Too short for an id: the name of an image that a registry may have.
    let error = user.failure(&["run", "--pull=never", digest.get(7..13).unwrap()]);
    assert!(error.contains("docker.io/library/"), "{error}");
}

#[test]
fn a_run_pulls_when_it_is_told_to() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    let error = user.failure(&["run", "--pull=never", &name]);
    assert!(
        error.starts_with(&format!("error: there is no image `{name}` in the store")),
        "{error}"
    );
    assert_eq!(registry.requests(), [""; 0]);
    for pull in ["--pull=newer", "--pull=always", "--pull=newer"] {
        request(&user.sarus(&["run", pull, &name]));
        assert!(!registry.requests().is_empty(), "{pull}");
    }
    request(&user.sarus(&["run", "--pull=never", &name]));
    assert_eq!(registry.requests(), [""; 0]);
}

#[test]
fn without_a_registry_newer_takes_the_stores_image_and_always_fails() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    user.output(&["pull", &name]);
    // The same store, under a name at a port where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let store = sarus_store::Store::open(user.path(".local/share/sarus"));
    let gone = format!("{nobody}/app:1");
    let reference = sarus_oci::Reference::parse(&gone).unwrap();
    store.tag(&reference, &sarus_oci::Platform::host(), &registry.image.digest()).unwrap();
    let said = user.sarus(&["run", "--pull=newer", &gone]);
    assert!(said.err.contains("note: using the image of the store: "), "{}", said.err);
    request(&said);
    let error = user.failure(&["run", "--pull=always", &gone]);
    assert!(error.contains(&nobody), "{error}");
}

#[test]
fn a_damaged_image_stops_a_run_until_it_is_pulled_again() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    let name = registry.name("app:1");
    user.output(&["pull", &name]);
    let file = user.json(&["inspect", &name])[0]["squashfs"].as_str().unwrap().to_owned();
    fs::File::create(&file).unwrap();
    let error = user.failure(&["run", &name]);
    assert!(error.contains("is damaged: 0 bytes"), "{error}");
    assert!(error.contains("hint: `sarus pull` of the image writes it anew"), "{error}");
    request(&user.sarus(&["run", "--pull=always", &name]));
    request(&user.sarus(&["run", &name]));
}

#[test]
fn a_run_of_a_file_needs_no_store_and_a_command() {
    let registry = hello();
    let (user, _place) = user_with_shim(&registry);
    user.output(&["pull", &registry.name("app")]);
    user.output(&["export", &registry.name("app"), "app.sqsh"]);
    let json = request(&user.sarus(&["run", "app.sqsh", "ls"]));
    assert_eq!(json["image"]["squashfs"], user.path("app.sqsh").to_str().unwrap());
    assert_eq!(json["image"].get("digest"), None);
    let error = user.failure(&["run", "app.sqsh"]);
    assert!(error.contains("has no default command, and none is given"), "{error}");
    let error = user.failure(&["run", "missing.sqsh", "ls"]);
    assert!(error.starts_with("error: cannot read the image file `missing.sqsh`\n"), "{error}");
    user.put("text.sqsh", "text");
    let error = user.failure(&["run", "./text.sqsh", "ls"]);
    assert!(error.contains("cannot be used as an image"), "{error}");
    let error = user.failure(&["run", "--env-file", "none", "app.sqsh", "ls"]);
    assert!(error.starts_with("error: cannot read the file of variables `none`\n"), "{error}");
}

#[test]
fn without_a_shim_a_run_says_that_the_installation_is_not_complete() {
    let registry = hello();
    let (user, place) = user_with_shim(&registry);
    fs::remove_file(place.path().join("sarus-shim")).unwrap();
    let name = registry.name("app");
    user.output(&["pull", &name]);
    let error = user.failure(&["run", &name]);
    assert!(error.starts_with("error: there is no `sarus-shim` at `"), "{error}");
    assert!(error.contains("hint: the installation is not complete"), "{error}");
}

#[test]
fn a_large_image_shows_its_progress_in_plain_lines_and_no_control_characters() {
    let tars: Vec<_> = (0..5).map(|n| tar(&[(&format!("f{n}"), &vec![n; 300_000])])).collect();
    let registry = Registry::serve(Packed::new(&tars, &serde_json::json!({})), false);
    let user = User::of(&registry).with("TERM", "xterm");
    let said = user.sarus(&["--verbose", "pull", &registry.name("large")]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains(": 5 layers, "), "{}", said.err);
    assert!(said.err.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", said.err);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = Command::new(PROGRAM)
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More follows than a pipe holds, so that some of it is written after the reader has left.
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
