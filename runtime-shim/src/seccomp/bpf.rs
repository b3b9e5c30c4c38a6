//! From a profile to a program of classic BPF: <https://docs.kernel.org/userspace-api/seccomp_filter.html>.
//!
//! The program searches the call's number among intervals, each with its own code, so it makes some
//! eight comparisons before it has found it. What is always allowed, whatever the arguments, is not
//! even asked for: since Linux 5.11 the kernel finds that out when it takes the program.

use std::collections::BTreeMap;

use sarus_config::seccomp::{Action, Condition, Operator, Profile, Rule};

use super::syscalls::Machine;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions are skipped when the comparison holds.
    pub(super) yes: u8,
    /// How many when it does not.
    pub(super) no: u8,
    pub(super) value: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`
pub(super) const SKIP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub(super) const EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`
pub(super) const GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`
pub(super) const GREATER_OR_EQUAL: u16 = 0x35;
/// `BPF_RET | BPF_K`
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`, of machines whose lower byte comes first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Numbers from here on are those of x32, on a kernel that has it.
const X32: u32 = 0x4000_0000;

/// A number that a tracer sets when there is to be no call: nothing is left to refuse.
const NO_CALL: u32 = u32::MAX;

const ENOSYS: Action = Action::Errno(38);

impl Instruction {
    /// As it lies in memory.
    pub(super) fn word(&self) -> u64 {
        let [a, b] = self.code.to_ne_bytes();
        let [c, d, e, f] = self.value.to_ne_bytes();
        u64::from_ne_bytes([a, b, self.yes, self.no, c, d, e, f])
    }

    fn plain(code: u16, value: u32) -> Self {
        Self { code, yes: 0, no: 0, value }
    }

    fn answer(action: Action) -> Self {
        Self::plain(RETURN, answer(action))
    }
}

/// The kernel's `SECCOMP_RET_`.
pub(super) fn answer(action: Action) -> u32 {
    match action {
        Action::KillProcess => 0x8000_0000,
        Action::KillThread => 0,
        Action::Trap => 0x0003_0000,
        Action::Errno(number) => 0x0005_0000 | u32::from(number),
        Action::Trace(number) => 0x7ff0_0000 | u32::from(number),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

/// The machine as the kernel names it to a filter (`AUDIT_ARCH_`).
pub(super) fn audit_name(machine: Machine) -> u32 {
    match machine {
        Machine::X86_64 => 0xc000_003e,
        Machine::Aarch64 => 0xc000_00b7,
    }
}

/// Compiles a profile. Calls newer than `newest` fail with ENOSYS, and so do those of another kind
/// than the machine's own (32 bits).
pub(super) fn compile(
    profile: &Profile,
    machine: Machine,
    newest: Option<u32>,
) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::plain(LOAD, ARCHITECTURE),
        Instruction { code: EQUAL, yes: 1, no: 0, value: audit_name(machine) },
        Instruction::answer(ENOSYS),
        Instruction::plain(LOAD, NUMBER),
    ];
    program.extend(search(&intervals(profile, machine, newest)));
    program
}

/// Consecutive numbers of calls, from `first` to where the next interval begins.
struct Interval {
    first: u32,
    code: Vec<Instruction>,
}

fn intervals(profile: &Profile, machine: Machine, newest: Option<u32>) -> Vec<Interval> {
    let mut calls: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| machine.number(name)) {
            calls.entry(number).or_default().push(rule);
        }
    }
    let code = |action| vec![Instruction::answer(action)];
    let mut intervals = vec![Interval { first: 0, code: code(profile.default) }];
    for (number, rules) in calls {
        append(&mut intervals, number, decision(rules, profile.default));
        append(&mut intervals, number + 1, code(profile.default));
    }
    if let Some(newest) = newest {
        append(&mut intervals, newest + 1, code(ENOSYS));
    }
    append(&mut intervals, X32, code(ENOSYS));
    append(&mut intervals, NO_CALL, code(Action::Allow));
    intervals
}

/// From `first` on `code` holds; what has the same code becomes one interval.
fn append(intervals: &mut Vec<Interval>, first: u32, code: Vec<Instruction>) {
    intervals.pop_if(|last| last.first == first);
    if intervals.last().is_none_or(|last| last.code != code) {
        intervals.push(Interval { first, code });
    }
}

/// A binary search, which is skipped to the right half of by a comparison.
fn search(intervals: &[Interval]) -> Vec<Instruction> {
    let (left, right) = match intervals {
        [] => return Vec::new(),
        [only] => return only.code.clone(),
        several => several.split_at(several.len() / 2),
    };
    let value = right[0].first;
    let (left, right) = (search(left), search(right));
    let mut code = Vec::with_capacity(left.len() + right.len() + 2);
    match u8::try_from(left.len()) {
        Ok(yes) => code.push(Instruction { code: GREATER_OR_EQUAL, yes, no: 0, value }),
        Err(_too_far) => {
            code.push(Instruction { code: GREATER_OR_EQUAL, yes: 0, no: 1, value });
            code.push(Instruction::plain(SKIP, u32::try_from(left.len()).unwrap_or(u32::MAX)));
        }
    }
    code.extend(left);
    code.extend(right);
    code
}

/// The code for one call: the strictest rule whose conditions hold, else the default.
///
/// A rule that says what the default says is left out, as by runc: otherwise one for some arguments
/// of a call that another rule allows would be the stricter one.
fn decision(mut rules: Vec<&Rule>, default: Action) -> Vec<Instruction> {
    rules.retain(|rule| rule.action != default);
    rules.sort_by_key(|rule| strictness(rule.action));
    let mut code = Vec::new();
    for rule in rules {
        code.extend(conditional(rule));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(Instruction::answer(default));
    code
}

/// The kernel's order, in which it decides between several filters.
fn strictness(action: Action) -> u8 {
    match action {
        Action::KillProcess => 0,
        Action::KillThread => 1,
        Action::Trap => 2,
        Action::Errno(_) => 3,
        Action::Trace(_) => 4,
        Action::Log => 5,
        Action::Allow => 6,
    }
}

/// Where a comparison leads to.
#[derive(Clone, Copy)]
enum Way {
    /// To the next instruction.
    On,
    /// To the next condition: this one holds.
    Met,
    /// Behind the rule: it does not apply.
    Failed,
}

struct Step {
    code: u16,
    value: u32,
    yes: Way,
    no: Way,
}

/// Answers with the rule's action where all its conditions hold, and goes on behind itself where
/// not. A rule has few conditions, so no way is longer than 255 instructions.
fn conditional(rule: &Rule) -> Vec<Instruction> {
    let conditions: Vec<Vec<Step>> = rule.conditions.iter().map(steps).collect();
    let size: usize = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    debug_assert!(size <= 255, "a rule of {size} instructions");
    let mut code: Vec<Instruction> = Vec::with_capacity(size);
    for condition in conditions {
        let next = code.len() + condition.len();
        for step in condition {
            let here = code.len() + 1;
            let distance = |way| match way {
                Way::On => 0,
                Way::Met => u8::try_from(next - here).unwrap_or(u8::MAX),
                Way::Failed => u8::try_from(size - here).unwrap_or(u8::MAX),
            };
            let (yes, no) = (distance(step.yes), distance(step.no));
            code.push(Instruction { code: step.code, yes, no, value: step.value });
        }
    }
    code.push(Instruction::answer(rule.action));
    code
}

/// Compares the upper half of the argument, and where that does not decide, the lower.
fn steps(condition: &Condition) -> Vec<Step> {
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let (met, failed) = match condition.operator {
        Equal | Greater | GreaterOrEqual => (Way::Met, Way::Failed),
        NotEqual | LessOrEqual | Less => (Way::Failed, Way::Met),
    };
    let is_equality = matches!(condition.operator, Equal | NotEqual);
    let last = match condition.operator {
        Equal | NotEqual => EQUAL,
        Greater | LessOrEqual => GREATER,
        GreaterOrEqual | Less => GREATER_OR_EQUAL,
    };
    let offset = ARGUMENTS + 8 * u32::from(condition.argument);
    let mut steps = Vec::new();
    let (mask, value) = (upper(condition.mask), upper(condition.value));
    if mask != 0 || value != 0 {
        load(&mut steps, offset + 4, mask);
        if !is_equality {
            steps.push(Step { code: GREATER, value, yes: met, no: Way::On });
        }
        steps.push(Step { code: EQUAL, value, yes: Way::On, no: failed });
    }
    load(&mut steps, offset, lower(condition.mask));
    steps.push(Step { code: last, value: lower(condition.value), yes: met, no: failed });
    steps
}

/// Loads half of an argument and keeps the bits in `mask`.
fn load(steps: &mut Vec<Step>, offset: u32, mask: u32) {
    steps.push(Step { code: LOAD, value: offset, yes: Way::On, no: Way::On });
    if mask != u32::MAX {
        steps.push(Step { code: AND, value: mask, yes: Way::On, no: Way::On });
    }
}

fn upper(value: u64) -> u32 {
    u32::try_from(value >> 32).unwrap_or(0)
}

fn lower(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}
