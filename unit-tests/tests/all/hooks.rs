//! OCI hook files: what is accepted, what is refused, when a hook runs, in which order.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarus_config::Config;
use sarus_config::hooks::{
    Directories, Hook, Occasion, Stage, files, load, paths_to_check, select,
};

/// A hook file with these conditions.
fn file_with(when: &str) -> String {
    format!(
        "{{\"version\": \"1.0.0\",\n\"hook\": {{\"path\": \"/bin/h\"}},\n\"when\": {when},\n\
         \"stages\": [\"createRuntime\"]}}"
    )
}

fn hook(text: &str) -> Hook {
    Hook::parse(text, Path::new("/h/10-x.json")).unwrap_or_else(|error| {
        panic!("{text}: {error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
    })
}

#[test]
fn every_key_of_the_format_is_read() {
    let hook = hook(
        r#"{
            "version": "1.0.0",
            "hook": {"path": "/opt/h", "args": ["h", ""], "env": ["A=b=c", "B="], "timeout": 30},
            "when": {"always": true},
            "sarus": {"plan": true},
            "stages": ["poststop", "precreate", "prestart", "createRuntime", "createContainer",
                       "startContainer", "poststart", "poststop"]
        }"#,
    );
    assert_eq!(hook.file, Path::new("/h/10-x.json"));
    assert_eq!(hook.name(), Path::new("10-x.json"));
    assert_eq!(hook.path, Path::new("/opt/h"));
    assert_eq!(hook.args, ["h", ""]);
    assert_eq!(hook.env, ["A=b=c", "B="]);
    assert_eq!(hook.timeout, Some(Duration::from_secs(30)));
    assert!(hook.plans);
    let stages: Vec<String> = hook.stages.iter().map(Stage::to_string).collect();
    let want = "precreate prestart createRuntime createContainer startContainer poststart poststop";
    assert_eq!(stages.join(" "), want);
}

#[test]
fn arguments_variables_and_timeout_may_be_absent() {
    let hook = hook(&file_with(r#"{"always": true}"#));
    assert_eq!((hook.args.len(), hook.env.len(), hook.timeout), (0, 0, None));
    assert!(!hook.plans);
}

#[test]
fn a_refusal_names_line_key_value_and_what_is_expected() {
    let start = "{\"version\": \"1.0.0\",\n";
    let entry = "\"hook\": {\"path\": \"/h\"},\n";
    let cases = [
        ("{\"version\": \"1.0.0\",".to_owned(), "line 1: EOF while parsing a value"),
        ("7".to_owned(), "line 1: expected an object"),
        ("{}".to_owned(), "line 1: `version` is missing"),
        (
            "{\"version\": \"0.1.0\", \"cmds\": []}".to_owned(),
            "line 1: `version` is \"0.1.0\", expected \"1.0.0\"",
        ),
        (
            "{\"hook\": \"/h\",\n\"stage\": [\"prestart\"]}".to_owned(),
            "line 2: unknown key `stage`; the nearest known key is `stages`",
        ),
        (format!("{start}\"when\": {{}}}}"), "line 1: `hook` is missing"),
        (format!("{start}\"hook\": {{}}}}"), "line 2: `hook.path` is missing"),
        (
            format!("{start}\"hook\": {{\"path\": \"h\"}}}}"),
            "line 2: `hook.path` is \"h\", expected an absolute path",
        ),
        (
            format!("{start}\"hook\": {{\"path\": \"/h\", \"arg\": []}}}}"),
            "line 2: unknown key `hook.arg`; the nearest known key is `hook.args`",
        ),
        (
            format!("{start}\"hook\": {{\"path\": \"/h\", \"args\": [1]}}}}"),
            "line 2: `hook.args[0]` is 1, expected a string",
        ),
        (
            format!("{start}\"hook\": {{\"path\": \"/h\", \"env\": [\"A=1\",\n\"=x\"]}}}}"),
            "line 3: `hook.env[1]` is \"=x\", expected a variable in the form `NAME=value`",
        ),
        (
            format!("{start}\"hook\": {{\"path\": \"/h\", \"timeout\": 0}}}}"),
            "line 2: `hook.timeout` is 0, expected a whole number of seconds, at least 1",
        ),
        (format!("{start}{entry}\"stages\": []}}"), "line 1: `when` is missing"),
        (format!("{start}{entry}\"when\": {{\"always\": true}}}}"), "line 1: `stages` is missing"),
        (
            format!("{start}{entry}\"when\": {{\"always\": true}},\n\"stages\": []}}"),
            "line 4: `stages` is a list, expected at least one stage",
        ),
        (
            format!("{start}{entry}\"when\": {{\"always\": true}},\n\"stages\": [\"create\"]}}"),
            "line 4: `stages[0]` is \"create\", expected one of \"precreate\", \"prestart\", \
             \"createRuntime\", \"createContainer\", \"startContainer\", \"poststart\", \"poststop\"",
        ),
        (
            file_with("{}"),
            "line 3: `when` is an object, expected at least one condition, e.g. {\"always\": true}",
        ),
        (
            file_with("{\"commands\": [], \"annotations\": {}}"),
            "line 3: `when` is an object, expected at least one condition, e.g. {\"always\": true}",
        ),
        (
            file_with("{\"command\": [\"x\"]}"),
            "line 3: unknown key `when.command`; the nearest known key is `when.commands`",
        ),
        (file_with("{\"always\": 1}"), "line 3: `when.always` is 1, expected `true` or `false`"),
        (file_with("{\"commands\": \"x\"}"), "line 3: `when.commands` is \"x\", expected a list"),
        (
            file_with("{\"commands\": [\"ok\",\n\"(\"]}"),
            "line 4: `when.commands[1]` is \"(\", expected a regular expression (unclosed group)",
        ),
        (
            file_with("{\"annotations\": {\"a\": \"[\"}}"),
            "line 3: `when.annotations.a` is \"[\", expected a regular expression (unclosed \
             character class)",
        ),
        (
            file_with("{\"annotations\": {\"*\": \"x\"}}"),
            "line 3: `when.annotations, key` is \"*\", expected a regular expression (repetition \
             operator missing expression)",
        ),
        (
            file_with("{\"commands\": [\"(a{1000}){1000}\"]}"),
            "line 3: `when.commands[0]` is \"(a{1000}){1000}\", expected a regular expression that \
             takes at most 262144 bytes",
        ),
    ];
    for (text, want) in cases {
        let error = Hook::parse(&text, Path::new("/h/x.json")).expect_err(&text);
        assert_eq!(error.to_string(), "hook file `/h/x.json` is not valid", "given {text}");
        assert_eq!(error.source().unwrap().to_string(), want, "given {text}");
        assert_eq!(
            error.hint().unwrap(),
            "mend `/h/x.json`, or rename it so that it does not end in `.json`; no container \
             starts until then"
        );
    }
}

#[test]
fn a_hook_runs_when_all_its_conditions_hold() {
    let mpi = r#"{"annotations": {"^com\\.hooks\\.mpi\\.enabled$": "^true$"}}"#;
    let two = r#"{"annotations": {"^a$": "1", "^b$": "2"}}"#;
    let shell = r#"{"commands": ["/sh$", "^bash$"]}"#;
    let all = r#"{"always": true, "hasBindMounts": true, "annotations": {"^a$": "^1$"},
                  "commands": ["sh$"]}"#;
    let cases: &[(&str, &[(&str, &str)], &str, bool, bool, &str)] = &[
        (r#"{"always": true}"#, &[], "sh", false, true, "it always runs"),
        (r#"{"always": false}"#, &[], "sh", true, false, "`when.always` is `false`"),
        (r#"{"hasBindMounts": true}"#, &[], "sh", true, true, "there are bind mounts"),
        (r#"{"hasBindMounts": true}"#, &[], "sh", false, false, "there are no bind mounts"),
        (r#"{"hasBindMounts": false}"#, &[], "sh", false, false, "`when.hasBindMounts` is `false`"),
        (
            mpi,
            &[("com.hooks.mpi.enabled", "true")],
            "sh",
            false,
            true,
            "annotation `com.hooks.mpi.enabled` is `true`",
        ),
        (mpi, &[], "sh", false, false, r"no annotation matches `^com\.hooks\.mpi\.enabled$`"),
        (
            mpi,
            &[("comXhooks.mpi.enabled", "true")],
            "sh",
            false,
            false,
            r"no annotation matches `^com\.hooks\.mpi\.enabled$`",
        ),
        (
            mpi,
            &[("com.hooks.mpi.enabled", "false")],
            "sh",
            false,
            false,
            "annotation `com.hooks.mpi.enabled` is `false`, which does not match `^true$`",
        ),
        (
            two,
            &[("a", "1"), ("b", "2")],
            "sh",
            false,
            true,
            "annotation `a` is `1`, and annotation `b` is `2`",
        ),
        (two, &[("a", "1")], "sh", false, false, "no annotation matches `^b$`"),
        (
            all,
            &[("a", "\u{1b}[2J\0")],
            "sh",
            true,
            false,
            "annotation `a` is `?[2J?`, which does not match `^1$`",
        ),
        (shell, &[], "/bin/sh", false, true, "command `/bin/sh` matches `/sh$`"),
        (shell, &[], "bash", false, true, "command `bash` matches `^bash$`"),
        (shell, &[], "zsh", false, false, "command `zsh` does not match `/sh$` or `^bash$`"),
        (
            all,
            &[("a", "1")],
            "sh",
            true,
            true,
            "it always runs, and there are bind mounts, and annotation `a` is `1`, and command \
             `sh` matches `sh$`",
        ),
        (all, &[("a", "1")], "ls", true, false, "command `ls` does not match `sh$`"),
        (
            all,
            &[("a", "2")],
            "sh",
            true,
            false,
            "annotation `a` is `2`, which does not match `^1$`",
        ),
    ];
    for (when, annotations, command, has_bind_mounts, runs, reason) in cases {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let occasion =
            Occasion { annotations: &annotations, command, has_bind_mounts: *has_bind_mounts };
        let decision = hook(&file_with(when)).decide(&occasion);
        assert_eq!((decision.runs, decision.reason.as_str()), (*runs, *reason), "given {when}");
    }
}

/// A directory with these files.
fn directory(at: &Path, files: &[(&str, &str)]) -> PathBuf {
    std::fs::create_dir(at).unwrap();
    for (name, text) in files {
        std::fs::File::create(at.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }
    at.to_owned()
}

#[test]
fn files_are_read_in_the_order_of_names_and_mask_only_among_shared_directories() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let always = file_with(r#"{"always": true}"#);
    let sometimes = file_with(r#"{"commands": ["^ls$"]}"#);
    let directories = Directories {
        own: vec![
            directory(
                &at("own"),
                &[("20-b.json", &always), ("10-a.json", &sometimes), ("README.md", "text")],
            ),
            at("none"),
            directory(&at("more"), &[("10-a.json", &always), ("9.json", &always)]),
            at("own"),
        ],
        containers: vec![
            directory(&at("etc"), &[("15-x.json", &always)]),
            directory(&at("usr"), &[("15-x.json", "not JSON"), ("10-a.json", &always)]),
        ],
    };
    let order = [
        "own/10-a.json",
        "more/10-a.json",
        "usr/10-a.json",
        "etc/15-x.json",
        "own/20-b.json",
        "more/9.json",
    ]
    .map(&at);
    assert_eq!(files(&directories).unwrap(), order);
    let hooks = load(&directories).unwrap();
    assert_eq!(hooks.iter().map(|hook| hook.file.clone()).collect::<Vec<_>>(), order);
    assert_eq!(directories.existing(), ["own", "more", "own", "etc", "usr"].map(&at));

    let occasion =
        Occasion { annotations: &BTreeMap::new(), command: "sh", has_bind_mounts: false };
    let chosen: Vec<_> = select(&hooks, &occasion).iter().map(|hook| hook.file.clone()).collect();
    assert_eq!(chosen, order[1..]);
}

#[test]
fn the_first_file_that_is_not_valid_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let own = |name: &str| Directories { own: vec![at(name)], containers: Vec::new() };
    let message = |name: &str| {
        let error = load(&own(name)).expect_err(name);
        let source = error.source().unwrap().to_string();
        (error.to_string(), source, error.hint().is_some())
    };

    directory(&at("bad"), &[("1.json", "{\"version\": 1}"), ("2.json", "")]);
    let text = format!("hook file `{}` is not valid", at("bad/1.json").display());
    let cause = "line 1: `version` is 1, expected \"1.0.0\"".to_owned();
    assert_eq!(message("bad"), (text, cause, true));

    directory(&at("dangling"), &[]);
    std::os::unix::fs::symlink("nowhere", at("dangling/1.json")).unwrap();
    let text = format!("cannot read hook file `{}`", at("dangling/1.json").display());
    assert_eq!(
        message("dangling"),
        (text, "No such file or directory (os error 2)".to_owned(), false)
    );

    directory(&at("nested"), &[]);
    std::fs::create_dir(at("nested/1.json")).unwrap();
    let text = format!("cannot read hook file `{}`", at("nested/1.json").display());
    assert_eq!(message("nested"), (text, "Is a directory (os error 21)".to_owned(), false));

    std::os::unix::fs::symlink("loop", at("loop")).unwrap();
    let text = format!("cannot list hook directory `{}`", at("loop").display());
    let cause = "Too many levels of symbolic links (os error 40)".to_owned();
    assert_eq!(message("loop"), (text, cause, false));
}

#[test]
fn the_configuration_names_the_directories() {
    let config = |text| Config::parse(text, Path::new("x")).unwrap().config;
    let shared = ["/etc/containers/oci/hooks.d", "/usr/share/containers/oci/hooks.d"];
    let cases = [
        ("{}", vec!["/etc/sarus/hooks.d"], shared.to_vec()),
        (r#"{"hooksDir": ["/b", "/a"]}"#, vec!["/b", "/a"], shared.to_vec()),
        (r#"{"containersHooks": false}"#, vec!["/etc/sarus/hooks.d"], vec![]),
    ];
    for (text, own, containers) in cases {
        let paths = |list: Vec<&str>| list.into_iter().map(PathBuf::from).collect();
        let want = Directories { own: paths(own), containers: paths(containers) };
        assert_eq!(Directories::of(&config(text)), want, "given {text}");
    }
}

#[test]
fn files_and_programs_of_the_host_are_to_be_checked() {
    let text = file_with(r#"{"always": true}"#);
    let inside = text.replace("createRuntime", "startContainer").replace("/bin/h", "/bin/inside");
    let hooks = [hook(&text), Hook::parse(&inside, Path::new("/h/20-y.json")).unwrap()];
    assert_eq!(
        paths_to_check(&hooks),
        ["/bin/h", "/h/10-x.json", "/h/20-y.json"].map(PathBuf::from)
    );
}

/// The files that a site copies: each is of a hook in `hooks`, which can say what it would do.
#[test]
fn the_templates_are_hook_files_of_programs_that_are_here() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for entry in fs_err::read_dir(workspace.join("etc/hooks.d")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs_err::read_to_string(&path).unwrap();
        let hook = Hook::parse(&text, &path).unwrap();
        let program = hook.path.to_str().unwrap();
        let name = program.strip_prefix("/usr/libexec/sarus/hooks/sarus-hook-").unwrap();
        assert!(workspace.join("hooks").join(name).is_dir(), "{}", path.display());
        assert!(hook.plans, "{}", path.display());
        count += 1;
    }
    assert!(count > 0, "there are no templates");
}
