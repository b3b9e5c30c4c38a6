//! Running containers as users see them, and the names that signals have.

use sarus_cli::running::{Line, parse_signal, ps_table};
use sarus_launch::{RECORD_VERSION, RawString, Record};

fn record(id: &str, command: &[&str]) -> Record {
    Record {
        version: RECORD_VERSION,
        id: id.to_owned(),
        supervisor: 40,
        process: 42,
        process_started: 7,
        created: 1_700_000_000,
        image: "docker.io/library/debian:12".to_owned(),
        command: command.iter().map(|word| RawString::from(*word)).collect(),
        env: Vec::new(),
        workdir: "/".into(),
        privileged: false,
    }
}

#[test]
fn the_list_shows_the_beginning_of_long_commands_and_no_control_characters() {
    let long = ["sh", "-c", "echo a very long command that goes on and on"];
    let lines = [
        Line::new(&record("solver.3", &long), false),
        Line::new(&record("sarus-40", &["a\u{1b}[2J"]), true),
    ];
    let want = "\
ID         PID   STATUS    IMAGE                         COMMAND                           CREATED
solver.3   42    running   docker.io/library/debian:12   sh -c echo a very long command…   2 minutes ago
sarus-40   42    stopped   docker.io/library/debian:12   a?[2J                             2 minutes ago
";
    assert_eq!(ps_table(&lines, 1_700_000_120), want);
}

#[test]
fn a_signal_is_given_by_name_or_number() {
    for (given, want) in [
        ("TERM", Some(15)),
        ("SIGTERM", Some(15)),
        ("sigusr1", Some(10)),
        ("9", Some(9)),
        ("64", Some(64)),
        ("0", None),
        ("65", None),
        ("-9", None),
        ("SIG", None),
        ("", None),
        ("TERMX", None),
    ] {
        assert_eq!(parse_signal(given).ok(), want, "{given:?}");
    }
    let error = parse_signal("FOO").unwrap_err().to_string();
    assert_eq!(
        error,
        "`--signal`: `FOO` is given, expected a signal's name like `TERM`, or its number"
    );
}

#[test]
fn a_record_of_another_version_is_told_so() {
    let json = serde_json::to_string(&record("a", &["true"])).unwrap();
    assert_eq!(Record::parse(json.as_bytes()).unwrap(), record("a", &["true"]));
    let other = json.replace("\"version\":1", "\"version\":9");
    let error = Record::parse(other.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("has version 9, and this one reads version 1"), "{error}");
    for hostile in ["", "[]", "{\"version\":1}", &"[".repeat(100_000)] {
        assert!(Record::parse(hostile.as_bytes()).is_err());
    }
}
