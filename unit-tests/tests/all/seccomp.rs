//! Seccomp profiles: what is accepted, for whom its rules hold, what is refused and in which words.

use std::error::Error;
use std::path::Path;

use proptest::prelude::*;
use sarus_config::seccomp::{Action, Condition, Host, KEYS, Operator, Profile, ProfileError, Rule};

const HOST: Host<'_> = Host { architecture: "amd64", kernel: (5, 14) };

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse(text, Path::new("/etc/seccomp.json"), HOST)
}

/// The rules of a profile of one entry, given without its braces.
fn rules(entry: &str) -> Vec<Rule> {
    let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{{entry}}}]}}"#);
    parse(&text).unwrap_or_else(|error| panic!("{text}: {error:?}")).rules
}

fn rule(names: &[&str], action: Action, conditions: &[Condition]) -> Rule {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Rule { names, action, conditions: conditions.to_vec() }
}

#[test]
fn a_profile_of_docker_podman_and_of_the_runtime_specification_is_read() {
    let containers = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "defaultErrno": "ENOSYS",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64",
             "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
        ],
        "syscalls": [
            {"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO", "args": [], "comment": "",
             "includes": {}, "excludes": {}, "errnoRet": 1, "errno": "EPERM"},
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 4294967295, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
             "excludes": {"caps": ["CAP_SYS_ADMIN"]}}
        ]
    }"#;
    let all =
        Condition { argument: 0, mask: u64::MAX, operator: Operator::Equal, value: 0xffff_ffff };
    let want = Profile {
        default: Action::Errno(38),
        rules: vec![
            rule(&["kexec_load"], Action::Errno(1), &[]),
            rule(&["read", "write"], Action::Allow, &[]),
            rule(&["personality"], Action::Allow, &[all]),
            rule(&["bpf"], Action::Errno(1), &[]),
        ],
        log: false,
        mitigate_speculation: false,
    };
    assert_eq!(parse(containers).unwrap(), want);

    let specification = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": ["getcwd", "chmod"], "action": "SCMP_ACT_ERRNO"}]
    }"#;
    let want = Profile {
        default: Action::Allow,
        rules: vec![rule(&["getcwd", "chmod"], Action::Errno(1), &[])],
        log: true,
        mitigate_speculation: true,
    };
    assert_eq!(parse(specification).unwrap(), want);
}

#[test]
fn an_entry_has_an_action_with_its_number() {
    for (given, want) in [
        (r#""SCMP_ACT_ALLOW""#, Action::Allow),
        (r#""SCMP_ACT_LOG""#, Action::Log),
        (r#""SCMP_ACT_TRAP""#, Action::Trap),
        (r#""SCMP_ACT_KILL""#, Action::KillThread),
        (r#""SCMP_ACT_KILL_THREAD""#, Action::KillThread),
        (r#""SCMP_ACT_KILL_PROCESS""#, Action::KillProcess),
        (r#""SCMP_ACT_ERRNO""#, Action::Errno(1)),
        (r#""SCMP_ACT_ERRNO", "errnoRet": null"#, Action::Errno(1)),
        (r#""SCMP_ACT_ERRNO", "errnoRet": 0"#, Action::Errno(0)),
        (r#""SCMP_ACT_ERRNO", "errnoRet": 4095"#, Action::Errno(4095)),
        (r#""SCMP_ACT_ERRNO", "errno": "ENOTSUP""#, Action::Errno(95)),
        (r#""SCMP_ACT_ERRNO", "errno": "EHWPOISON""#, Action::Errno(133)),
        (r#""SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EACCES""#, Action::Errno(13)),
        (r#""SCMP_ACT_TRACE""#, Action::Trace(1)),
        (r#""SCMP_ACT_TRACE", "errnoRet": 65535"#, Action::Trace(65535)),
    ] {
        for name in [r#""name": "read""#, r#""names": ["read"]"#] {
            let entry = format!(r#"{name}, "action": {given}"#);
            assert_eq!(rules(&entry), [rule(&["read"], want, &[])], "{entry}");
        }
    }
}

#[test]
fn an_entry_holds_for_architectures_kernels_and_commands_without_capabilities() {
    for (given, holds) in [
        (r#""includes": {"arches": ["arm64", "amd64"]}"#, true),
        (r#""includes": {"arches": ["arm64"]}"#, false),
        (r#""excludes": {"arches": ["amd64"]}"#, false),
        (r#""excludes": {"arches": ["s390x"]}"#, true),
        (r#""includes": {"minKernel": "4.8"}"#, true),
        (r#""includes": {"minKernel": "5.14"}"#, true),
        (r#""includes": {"minKernel": "5.15"}"#, false),
        (r#""excludes": {"minKernel": "6.0"}"#, true),
        (r#""excludes": {"minKernel": "4.20"}"#, false),
        (r#""includes": {"caps": ["CAP_CHOWN"]}"#, false),
        (r#""excludes": {"caps": ["CAP_CHOWN"]}"#, true),
        (
            r#""includes": {"arches": ["amd64"], "caps": []}, "excludes": {"minKernel": "5.1"}"#,
            false,
        ),
    ] {
        let entry = format!(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", {given}"#);
        assert_eq!(rules(&entry).len(), usize::from(holds), "{entry}");
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_others_hold_together() {
    let entry = |conditions: &str| {
        format!(r#""names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{conditions}]"#)
    };
    let is = |argument, operator, value| Condition { argument, mask: u64::MAX, operator, value };
    let one = r#"{"index": 1, "op": "SCMP_CMP_GT", "value": 18446744073709551615}"#;
    let other = r#"{"index": 5, "op": "SCMP_CMP_LE", "value": 7, "valueTwo": 0}"#;
    let again = r#"{"index": 1, "op": "SCMP_CMP_NE", "value": 0}"#;
    let masked = r#"{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 12, "valueTwo": 255}"#;
    let first = is(1, Operator::Greater, u64::MAX);
    let second = is(5, Operator::LessOrEqual, 7);
    let third = is(1, Operator::NotEqual, 0);
    let fourth = Condition { argument: 0, mask: 12, operator: Operator::Equal, value: 12 };
    let allow = |conditions: &[Condition]| rule(&["ioctl"], Action::Allow, conditions);
    for (given, want) in [
        (format!("{one},{other}"), vec![allow(&[first, second])]),
        (
            format!("{one},{other},{again}"),
            vec![allow(&[first]), allow(&[second]), allow(&[third])],
        ),
        (masked.to_owned(), vec![allow(&[fourth])]),
    ] {
        assert_eq!(rules(&entry(&given)), want, "{given}");
    }
}

#[test]
fn a_refusal_names_line_key_value_and_what_is_expected() {
    let top = |members: &str| format!("{{\n\"defaultAction\": \"SCMP_ACT_ALLOW\",\n{members}}}");
    let entry = |members: &str| {
        top(&format!(
            "\"syscalls\": [{{\"names\": [], \"action\": \"SCMP_ACT_ALLOW\",\n{members}}}]"
        ))
    };
    let condition = |members: &str| entry(&format!("\"args\": [{{{members}}}]"));
    for (text, want) in [
        ("[]".to_owned(), "line 1: expected an object"),
        ("{}".to_owned(), "line 1: `defaultAction` is missing"),
        (
            "{\"defaultAction\": \"ALLOW\"}".to_owned(),
            "line 1: `defaultAction` is \"ALLOW\", expected SCMP_ACT_ and one of ALLOW, ERRNO, KILL, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP",
        ),
        (
            top("\"syscals\": []"),
            "line 3: unknown key `syscals`; the nearest known key is `syscalls`",
        ),
        (top("\"syscalls\": {}"), "line 3: `syscalls` is an object, expected a list"),
        (
            top("\"listenerPath\": \"/run/s\""),
            "line 3: `listenerPath` is \"/run/s\", expected no listener: there is none to notify",
        ),
        (
            top("\"architectures\": [\"x86_64\"]"),
            "line 3: `architectures[0]` is \"x86_64\", expected the name of an architecture, like \"SCMP_ARCH_X86_64\"",
        ),
        (
            top("\"archMap\": [{\"architecture\": 7}]"),
            "line 3: `archMap[0].architecture` is 7, expected a string",
        ),
        (
            top("\"flags\": [\"LOG\"]"),
            "line 3: `flags[0]` is \"LOG\", expected a flag of seccomp(2), like \"SECCOMP_FILTER_FLAG_LOG\"",
        ),
        (
            top("\"syscalls\": [{\"names\": [\"read\"],\n\"action\": \"SCMP_ACT_NOTIFY\"}]"),
            "line 4: `syscalls[0].action` is \"SCMP_ACT_NOTIFY\", expected another action: there is nobody to notify",
        ),
        (top("\"syscalls\": [{\"names\": [\"read\"]}]"), "line 3: `syscalls[0].action` is missing"),
        (
            top("\"syscalls\": [{\"action\": \"SCMP_ACT_ALLOW\"}]"),
            "line 3: `syscalls[0].names` is missing",
        ),
        (
            top("\"syscalls\": [\n{\"names\": [\"read\", 3], \"action\": \"SCMP_ACT_ALLOW\"}]"),
            "line 4: `syscalls[0].names[1]` is 3, expected a string",
        ),
        (
            top(
                "\"syscalls\": [{\"names\": [], \"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": 4096}]",
            ),
            "line 3: `syscalls[0].errnoRet` is 4096, expected an error number, at most 4095",
        ),
        (
            top(
                "\"syscalls\": [{\"names\": [], \"action\": \"SCMP_ACT_ERRNO\", \"errno\": \"PERM\"}]",
            ),
            "line 3: `syscalls[0].errno` is \"PERM\", expected an error's name, like \"EPERM\"",
        ),
        (
            entry("\"name\": \"read\""),
            "line 3: `syscalls[0].names` is a list, expected either `name` or `names`",
        ),
        (
            entry("\"errnoRet\": -1"),
            "line 4: `syscalls[0].errnoRet` is -1, expected a whole number from 0 to 65535",
        ),
        (
            entry("\"includes\": {\"caps\": [\"ALL\"]}"),
            "line 4: `syscalls[0].includes.caps[0]` is \"ALL\", expected a capability, like \"CAP_SYS_ADMIN\"",
        ),
        (
            entry("\"excludes\": {\"minKernel\": \"new\"}"),
            "line 4: `syscalls[0].excludes.minKernel` is \"new\", expected a kernel's version, like \"4.8\"",
        ),
        (
            condition("\"index\": 6, \"value\": 0, \"op\": \"SCMP_CMP_EQ\""),
            "line 4: `syscalls[0].args[0].index` is 6, expected a whole number from 0 to 5",
        ),
        (
            condition("\"index\": 0, \"value\": 18446744073709551616, \"op\": \"SCMP_CMP_EQ\""),
            "line 4: `syscalls[0].args[0].value` is 1.8446744073709552e+19, expected a whole number from 0 to 18446744073709551615",
        ),
        (
            condition("\"index\": 0, \"value\": 0, \"op\": \"SCMP_CMP_IS\""),
            "line 4: `syscalls[0].args[0].op` is \"SCMP_CMP_IS\", expected SCMP_CMP_ and one of EQ, NE, LT, LE, GT, GE, MASKED_EQ",
        ),
        (condition("\"index\": 0, \"value\": 0"), "line 4: `syscalls[0].args[0].op` is missing"),
    ] {
        let error = parse(&text).expect_err(&text);
        assert_eq!(error.to_string(), "seccomp profile `/etc/seccomp.json` is not valid");
        assert_eq!(error.source().unwrap().to_string(), want, "given {text}");
    }
}

#[test]
fn a_hostile_file_is_refused() {
    let depth = |open: &str, close: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}{}}}"#,
            open.repeat(5000),
            close.repeat(5000)
        )
    };
    let size = sarus_config::FILE_SIZE_MAX + 1;
    let long = "x".repeat(100_000);
    for text in [
        depth("[", "]"),
        depth("{\"a\":", "}"),
        "[".repeat(size - 1),
        " ".repeat(size),
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"defaultAction": "{long}"}}"#),
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1e400}"#.to_owned(),
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99999999999999999999}"#
            .to_owned(),
        r#"{"defaultAction": "SCMP_ACT_ALLOW\u0000"}"#.to_owned(),
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_ALLOW"}"#.to_owned(),
    ] {
        let start: String = text.chars().take(80).collect();
        assert!(parse(&text).is_err(), "accepted {start}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Profile::load(Path::new("/no/such/profile"), HOST).expect_err("absent");
    assert_eq!(error.to_string(), "cannot read seccomp profile `/no/such/profile`");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    fs_err::write(&file, b"{\n\"defaultAction\": \"\xff\"}").unwrap();
    let error = Profile::load(&file, HOST).expect_err("no text");
    assert_eq!(error.source().unwrap().to_string(), "line 2: the text is not UTF-8");
    fs_err::write(&file, r#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
    assert_eq!(Profile::load(&file, HOST).unwrap().default, Action::Log);
}

/// Values of any type where a profile has its own.
fn anything() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = KEYS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    let words = vec![
        "null",
        "true",
        "-1",
        "0",
        "5",
        "1e9",
        "18446744073709551616",
        "\"\"",
        "\"SCMP_ACT_ALLOW\"",
        "\"SCMP_ACT_ERRNO\"",
        "\"SCMP_CMP_MASKED_EQ\"",
        "\"read\"",
        "\"CAP_SYS_ADMIN\"",
        "\"4.8\"",
        "\"SCMP_ARCH_X86\"",
    ];
    let leaf = prop::sample::select(words).prop_map(str::to_owned);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let member = (prop::sample::select(keys.clone()), inner.clone())
            .prop_map(|(key, value)| format!("\"{key}\": {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(values in prop::collection::vec(anything(), 3), junk in ".{0,40}") {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{}], "archMap": {}, "flags": {}}}"#,
            values[0], values[1], values[2]
        );
        let _any = parse(&text);
        let _any = parse(&junk);
        let _any = parse(&values[0]);
        let entry = format!(r#"{{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{}], "includes": {}}}"#, values[1], values[2]);
        let _any = parse(&format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{entry}]}}"#));
    }
}
