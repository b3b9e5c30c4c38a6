//! Compiled filters, run as the kernel runs them.

use std::path::Path;

use proptest::prelude::*;
use sarus_config::seccomp::{Action, Condition, Host, Operator, Profile, Rule};

use super::bpf::{
    AND, EQUAL, GREATER, GREATER_OR_EQUAL, Instruction, LOAD, RETURN, SKIP, answer, audit_name,
    compile,
};
use super::syscalls::Machine;
use super::{INSTRUCTIONS_MAX, builtin, filters, newest_named, version};

const BOTH: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];
const ALLOW: Action = Action::Allow;
const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// A call as a filter sees it.
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

/// What the kernel's interpreter does, for the instructions that a seccomp filter may have. Ends
/// the test where the kernel would refuse the program.
fn run(program: &[Instruction], call: &Call) -> u32 {
    let half = |index: u32| {
        let argument = call.arguments[(index / 2) as usize];
        u32::try_from(argument >> (32 * (index % 2)) & 0xffff_ffff).unwrap()
    };
    let (mut register, mut next) = (0_u32, 0);
    loop {
        let Instruction { code, yes, no, value } = program[next];
        next += 1;
        let holds = match code {
            LOAD => {
                assert_eq!(value % 4, 0);
                register = match value {
                    0 => call.number,
                    4 => call.architecture,
                    16..64 => half((value - 16) / 4),
                    _ => panic!("load of {value}"),
                };
                continue;
            }
            AND => {
                register &= value;
                continue;
            }
            SKIP => {
                next += value as usize;
                continue;
            }
            RETURN => return value,
            EQUAL => register == value,
            GREATER => register > value,
            GREATER_OR_EQUAL => register >= value,
            _ => panic!("instruction {code:#x}"),
        };
        next += usize::from(if holds { yes } else { no });
    }
}

/// A program, and the machine that it is for.
struct Compiled(Vec<Instruction>, Machine);

impl Compiled {
    fn builtin(machine: Machine) -> Self {
        Self(compile(&builtin::profile(), machine, Some(machine.newest())), machine)
    }

    fn of(text: &str, machine: Machine) -> Self {
        let profile = parse(text, machine);
        Self(compile(&profile, machine, newest_named(&profile, machine)), machine)
    }

    fn number(&self, number: u32, arguments: [u64; 6]) -> u32 {
        run(&self.0, &Call { architecture: audit_name(self.1), number, arguments })
    }

    fn call(&self, name: &str, arguments: &[u64]) -> u32 {
        let mut all = [u64::MAX; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.number(self.1.number(name).unwrap(), all)
    }
}

fn parse(text: &str, machine: Machine) -> Profile {
    let host = Host { architecture: machine.go_name(), kernel: (6, 1) };
    Profile::parse(text, Path::new("/p"), host).unwrap()
}

#[test]
fn the_built_in_profile_refuses_what_it_lists() {
    for machine in BOTH {
        let filter = Compiled::builtin(machine);
        for rule in builtin::profile().rules.iter().filter(|rule| rule.conditions.is_empty()) {
            for name in rule.names.iter().filter(|name| machine.number(name).is_some()) {
                assert_eq!(filter.call(name, &[]), answer(rule.action), "{name}");
            }
        }
    }
}

#[test]
fn the_built_in_profile_looks_at_arguments() {
    let junk = 0xdead_beef_0000_0000;
    for (name, arguments, want) in [
        ("clone", vec![17], ALLOW),
        // What pthread_create(3), vfork(3) and posix_spawn(3) ask for.
        ("clone", vec![0x003d_0f00], ALLOW),
        ("clone", vec![0x4111], ALLOW),
        ("clone", vec![0x1000_0011], EPERM),
        ("clone", vec![0x0002_0011], EPERM),
        ("clone", vec![0x4000_0000], EPERM),
        ("clone", vec![junk | 0x2000_0000], EPERM),
        ("unshare", vec![0], ALLOW),
        ("unshare", vec![0x600], ALLOW),
        ("unshare", vec![0x1000_0000], EPERM),
        ("unshare", vec![0x80], EPERM),
        ("unshare", vec![0x0200_0000], EPERM),
        ("unshare", vec![0x0800_0400], EPERM),
        ("ioctl", vec![0, 0x5401], ALLOW),
        ("ioctl", vec![0, 0x5412], EPERM),
        ("ioctl", vec![0, 0x541c], EPERM),
        ("ioctl", vec![0, junk | 0x5412], EPERM),
        ("ioctl", vec![0, 0xffff_ffff_0000_541c], EPERM),
        ("ioctl", vec![0x5412, 0x5413, 0x5412], ALLOW),
        // The drivers of NVIDIA and AMD.
        ("ioctl", vec![3, 0xc020_462a], ALLOW),
        ("ioctl", vec![3, 0xc010_4b21], ALLOW),
        ("personality", vec![0], ALLOW),
        ("personality", vec![0x4_0000], ALLOW),
        ("personality", vec![0xffff_ffff], ALLOW),
        ("personality", vec![u64::MAX], ALLOW),
        ("personality", vec![0x40_0000], EPERM),
        ("personality", vec![8], EPERM),
        ("personality", vec![junk | 0x40_0000], EPERM),
        ("userfaultfd", vec![1], ALLOW),
        ("userfaultfd", vec![0x8_0001], ALLOW),
        ("userfaultfd", vec![0x8_0000], EPERM),
    ] {
        for machine in BOTH {
            let given = Compiled::builtin(machine).call(name, &arguments);
            assert_eq!(given, answer(want), "{name} {arguments:x?} on {machine:?}");
        }
    }
}

#[test]
fn the_built_in_profile_lets_mpi_debuggers_and_drivers_work() {
    let names = "process_vm_readv process_vm_writev ptrace kcmp perf_event_open mbind set_mempolicy \
        get_mempolicy move_pages migrate_pages sched_setaffinity sched_setscheduler memfd_create \
        memfd_secret mlock mlock2 shmget shmat mmap mprotect pidfd_open pidfd_getfd process_madvise \
        socket vmsplice chroot seccomp landlock_restrict_self prctl execve sendmsg rt_sigtimedwait \
        openat2 statx rseq futex_waitv pkey_mprotect name_to_handle_at";
    for machine in BOTH {
        let filter = Compiled::builtin(machine);
        for name in names.split_whitespace() {
            assert_eq!(filter.call(name, &[]), answer(ALLOW), "{name}");
        }
    }
}

#[test]
fn what_is_not_mentioned_gets_the_default_and_what_is_newer_is_absent() {
    let containers = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["read", "close", "openat2", "stat"], "action": "SCMP_ACT_ALLOW"}]}"#;
    for machine in BOTH {
        for (filter, rules, default, newest) in [
            (Compiled::builtin(machine), builtin::profile().rules, ALLOW, machine.newest()),
            (
                Compiled::of(containers, machine),
                parse(containers, machine).rules,
                Action::Errno(13),
                machine.number("openat2").unwrap(),
            ),
        ] {
            let named = rules.iter().flat_map(|rule| &rule.names);
            let named: Vec<u32> = named.filter_map(|name| machine.number(name)).collect();
            for number in (0..2000).chain([0x3fff_ffff]).filter(|number| !named.contains(number)) {
                let want = if number > newest { ENOSYS } else { default };
                assert_eq!(filter.number(number, [0; 6]), answer(want), "{number}");
            }
        }
    }
}

#[test]
fn calls_of_other_architectures_are_absent() {
    for machine in BOTH {
        let filter = Compiled::builtin(machine);
        // i386, arm, riscv64, the other of the two.
        let others = [0x4000_0003, 0x4000_0028, 0xc000_00f3];
        let others = others.into_iter().chain(BOTH.map(audit_name));
        for architecture in others.filter(|other| *other != audit_name(machine)) {
            for number in [0, 1, 2, 39, 1000] {
                let given = run(&filter.0, &Call { architecture, number, arguments: [0; 6] });
                assert_eq!(given, answer(ENOSYS), "{architecture:x}");
            }
        }
        for number in [0x4000_0000, 0x4000_0001, 0x4000_0000 + 520, 0x8000_0000, 0xffff_fffe] {
            assert_eq!(filter.number(number, [0; 6]), answer(ENOSYS), "x32: {number:x}");
        }
        assert_eq!(filter.number(u32::MAX, [0; 6]), answer(ALLOW), "no call, says a tracer");
    }
}

#[test]
fn rules_of_one_call_count_by_strictness() {
    let profile = |rules: &str| {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#);
        Compiled::of(&text, Machine::X86_64)
    };
    let always = |action: &str| format!(r#"{{"names": ["socket"], "action": "{action}"}}"#);
    let for_16 = |action: &str| {
        format!(
            r#"{{"names": ["socket"], "action": "{action}",
                "args": [{{"index": 0, "op": "SCMP_CMP_EQ", "value": 16}}]}}"#
        )
    };
    for (rules, for_sixteen, for_others) in [
        ([always("SCMP_ACT_ALLOW"), for_16("SCMP_ACT_KILL")], Action::KillThread, ALLOW),
        (
            [for_16("SCMP_ACT_KILL_PROCESS"), always("SCMP_ACT_LOG")],
            Action::KillProcess,
            Action::Log,
        ),
        ([for_16("SCMP_ACT_TRAP"), for_16("SCMP_ACT_ALLOW")], Action::Trap, EPERM),
        ([for_16("SCMP_ACT_ALLOW"), for_16("SCMP_ACT_TRACE")], Action::Trace(1), EPERM),
        // Says what the default says.
        ([for_16("SCMP_ACT_ERRNO"), always("SCMP_ACT_ALLOW")], ALLOW, ALLOW),
        ([always("SCMP_ACT_ERRNO"), for_16("SCMP_ACT_ALLOW")], ALLOW, EPERM),
    ] {
        let filter = profile(&rules.join(","));
        assert_eq!(filter.call("socket", &[16]), answer(for_sixteen), "{rules:?}");
        assert_eq!(filter.call("socket", &[2]), answer(for_others), "{rules:?}");
    }
}

#[test]
fn several_conditions_on_one_argument_are_alternatives() {
    let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 0},
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 8}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "op": "SCMP_CMP_EQ", "value": 1},
            {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 15, "valueTwo": 255}]}]}"#;
    let filter = Compiled::of(text, Machine::X86_64);
    for (name, arguments, want) in [
        ("personality", [0, 0], ALLOW),
        ("personality", [8, 0], ALLOW),
        ("personality", [4, 0], EPERM),
        ("socket", [1, 0x8_000f], ALLOW),
        ("socket", [1, 0x8_000e], EPERM),
        ("socket", [2, 15], EPERM),
    ] {
        assert_eq!(filter.call(name, &arguments), answer(want), "{name} {arguments:x?}");
    }
}

#[test]
fn the_built_in_filter_is_small() {
    for machine in BOTH {
        let size = Compiled::builtin(machine).0.len();
        assert!(size < 256, "{size} instructions for {machine:?}");
    }
    let words: Vec<u64> =
        filters(&sarus_config::Config::default()).unwrap()[0].words().take(3).collect();
    assert_eq!(words[0], 4, "SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    assert_eq!(words[1], Compiled::builtin(Machine::OWN).0.len() as u64);
    assert_eq!(words[2], 0x0000_0004_0000_0020, "load the architecture");
}

#[test]
fn a_kernel_s_version_is_its_first_two_numbers() {
    for (given, want) in
        [("6.1.0-18-amd64", (6, 1)), ("5.14", (5, 14)), ("7", (7, 0)), ("", (0, 0))]
    {
        assert_eq!(version(given), want, "{given}");
    }
}

/// What a profile says of a call, without a program.
fn meaning(profile: &Profile, machine: Machine, number: u32, arguments: &[u64; 6]) -> u32 {
    let holds = |condition: &Condition| {
        let argument = arguments[usize::from(condition.argument)] & condition.mask;
        match condition.operator {
            Operator::Equal => argument == condition.value,
            Operator::NotEqual => argument != condition.value,
            Operator::Less => argument < condition.value,
            Operator::LessOrEqual => argument <= condition.value,
            Operator::Greater => argument > condition.value,
            Operator::GreaterOrEqual => argument >= condition.value,
        }
    };
    let order = |rule: &&Rule| match rule.action {
        Action::KillProcess => 0,
        Action::KillThread => 1,
        Action::Trap => 2,
        Action::Errno(_) => 3,
        Action::Trace(_) => 4,
        Action::Log => 5,
        Action::Allow => 6,
    };
    let rules = profile.rules.iter().filter(|rule| {
        rule.action != profile.default
            && rule.names.iter().any(|name| machine.number(name) == Some(number))
            && rule.conditions.iter().all(holds)
    });
    answer(rules.min_by_key(order).map_or(profile.default, |rule| rule.action))
}

/// Numbers near which a comparison in two halves could go wrong.
fn value() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];
    prop_oneof![prop::sample::select(edges.to_vec()), any::<u64>()]
}

fn action() -> impl Strategy<Value = Action> {
    // One number for all: of several, the first would count whatever its conditions.
    let all = [Action::KillProcess, Action::KillThread, Action::Trap, Action::Log, ALLOW, EPERM];
    prop::sample::select(all.to_vec())
}

fn rule() -> impl Strategy<Value = Rule> {
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let operators = vec![Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual];
    let mask = prop_oneof![Just(u64::MAX), value()];
    let condition = (0_u8..6, mask, prop::sample::select(operators), value()).prop_map(
        |(argument, mask, operator, value)| Condition { argument, mask, operator, value },
    );
    let names = vec!["read", "write", "close", "ioctl", "clone3", "dup", "mseal", "no_such_call"];
    let names = prop::collection::vec(prop::sample::select(names).prop_map(str::to_owned), 0..4);
    (names, action(), prop::collection::vec(condition, 0..4))
        .prop_map(|(names, action, conditions)| Rule { names, action, conditions })
}

proptest! {
    #[test]
    fn a_program_does_what_its_profile_says(
        rules in prop::collection::vec(rule(), 0..12),
        default in action(),
        arguments in prop::array::uniform6(value()),
    ) {
        let profile = Profile { default, rules, log: false, mitigate_speculation: true };
        for machine in BOTH {
            let filter = Compiled(compile(&profile, machine, None), machine);
            for number in 0..=machine.newest() + 1 {
                let want = meaning(&profile, machine, number, &arguments);
                prop_assert_eq!(filter.number(number, arguments), want, "{}", number);
            }
        }
    }
}

#[test]
fn a_long_program_jumps_far_and_one_that_is_too_long_is_noticed() {
    let rules = |count: u64| {
        let rule = |index: u64| Rule {
            names: vec!["close".to_owned(), "ioctl".to_owned(), "sendmsg".to_owned()],
            action: Action::Errno(u16::try_from(index % 4000).unwrap()),
            conditions: vec![Condition {
                argument: 1,
                mask: u64::MAX,
                operator: Operator::Equal,
                value: index << 20,
            }],
        };
        Profile {
            default: ALLOW,
            rules: (0..count).map(rule).collect(),
            log: false,
            mitigate_speculation: true,
        }
    };
    let filter = Compiled(compile(&rules(200), Machine::X86_64, None), Machine::X86_64);
    assert!((3000..INSTRUCTIONS_MAX).contains(&filter.0.len()));
    for index in 0..200 {
        for name in ["close", "ioctl", "sendmsg"] {
            let want = Action::Errno(u16::try_from(index).unwrap());
            assert_eq!(filter.call(name, &[0, index << 20]), answer(want));
        }
        assert_eq!(filter.call("ioctl", &[0, 3]), answer(ALLOW));
        assert_eq!(filter.call("read", &[0, index << 20]), answer(ALLOW));
    }
    assert!(compile(&rules(300), Machine::X86_64, None).len() > INSTRUCTIONS_MAX);
}
