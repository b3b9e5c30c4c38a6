//! From the text of a seccomp profile to a [`Profile`]. Does no I/O.

use super::{Action, Condition, Host, Operator, Profile, Rule, errno};
use crate::document;
use crate::error::Fault;
use crate::field::{Field, Object};
use crate::keys::KeyTable;

/// Each object of a profile, by the way to it, and the keys that it may have.
pub const KEYS: KeyTable = &[
    (
        "",
        &[
            "defaultAction",
            "defaultErrnoRet",
            "defaultErrno",
            "architectures",
            "archMap",
            "flags",
            "listenerPath",
            "listenerMetadata",
            "syscalls",
        ],
    ),
    ("archMap[]", &["architecture", "subArchitectures"]),
    (
        "syscalls[]",
        &[
            "names", "name", "action", "errnoRet", "errno", "args", "comment", "includes",
            "excludes",
        ],
    ),
    ("syscalls[].args[]", &["index", "value", "valueTwo", "op"]),
    ("syscalls[].includes", &["caps", "arches", "minKernel"]),
];

/// What libseccomp knows, after `SCMP_ARCH_`.
const ARCHITECTURES: [&str; 24] = [
    "NATIVE",
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
];

/// The number of an error, where a rule says that there is one but not which.
const EPERM: u16 = 1;

fn known(path: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(object, _)| *object == path).map_or(&[], |(_, keys)| *keys)
}

pub(super) fn profile(text: &str, host: Host<'_>) -> Result<Profile, Fault> {
    let node = document::parse(text)?;
    let root = Field::root(&node);
    if !root.is_object() {
        return Err(Fault::Syntax { line: root.line(), reason: "expected an object".to_owned() });
    }
    let object = root.object(known(""))?;
    for key in ["listenerPath", "listenerMetadata"] {
        if let Some(listener) = given(&object, key) {
            return Err(listener.wrong("no listener: there is none to notify"));
        }
    }
    architectures(&object)?;
    let default = action(&object, ("defaultAction", "defaultErrnoRet", "defaultErrno"))?;
    let (log, mitigate_speculation) = flags(&object)?;
    let mut rules = Vec::new();
    for field in list(&object, "syscalls")? {
        rules.extend(rule(&field, host)?);
    }
    Ok(Profile { default, rules, log, mitigate_speculation })
}

/// The value of a key. `null` is how programs in Go write that there is none.
fn given<'o, 'n>(object: &'o Object<'n>, key: &str) -> Option<&'o Field<'n>> {
    object.optional(key).filter(|field| !field.is_null())
}

/// The items of a list that may be absent.
fn list<'n>(object: &Object<'n>, key: &str) -> Result<Vec<Field<'n>>, Fault> {
    given(object, key).map_or_else(|| Ok(Vec::new()), Field::list)
}

/// Checked, and otherwise of no effect: a filter is for the machine's own calls.
fn architectures(object: &Object<'_>) -> Result<(), Fault> {
    let mut named = list(object, "architectures")?;
    for entry in list(object, "archMap")? {
        let entry = entry.object(known("archMap[]"))?;
        named.push(entry.required("architecture")?.clone());
        named.extend(list(&entry, "subArchitectures")?);
    }
    for field in named {
        let name = field.text()?.strip_prefix("SCMP_ARCH_");
        if !name.is_some_and(|name| ARCHITECTURES.contains(&name)) {
            return Err(field.wrong("the name of an architecture, like \"SCMP_ARCH_X86_64\""));
        }
    }
    Ok(())
}

/// Whether to log what is refused, and whether to mitigate speculation.
fn flags(object: &Object<'_>) -> Result<(bool, bool), Fault> {
    let Some(field) = given(object, "flags") else { return Ok((false, false)) };
    let (mut log, mut mitigate) = (false, true);
    for flag in field.list()? {
        match flag.text()? {
            "SECCOMP_FILTER_FLAG_LOG" => log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => mitigate = false,
            // The process that loads the filter has one thread, and nobody is notified.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {}
            _ => return Err(flag.wrong("a flag of seccomp(2), like \"SECCOMP_FILTER_FLAG_LOG\"")),
        }
    }
    Ok((log, mitigate))
}

/// The action under the first key; the number that it returns is under one of the others, and the
/// one given by name counts.
fn action(object: &Object<'_>, keys: (&str, &str, &str)) -> Result<Action, Fault> {
    let field = object.required(keys.0)?;
    let mut data = None;
    if let Some(number) = given(object, keys.1) {
        data = Some((number, u16::try_from(number.integer(0, u16::MAX.into())?).unwrap_or(EPERM)));
    }
    if let Some(name) = given(object, keys.2).filter(|name| name.text() != Ok("")) {
        let number = errno::number(name.text()?);
        data = Some((name, number.ok_or_else(|| name.wrong("an error's name, like \"EPERM\""))?));
    }
    let number = data.map_or(EPERM, |(_, number)| number);
    match field.text()? {
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_ERRNO" => match data {
            Some((field, 4096..)) => Err(field.wrong("an error number, at most 4095")),
            _ => Ok(Action::Errno(number)),
        },
        "SCMP_ACT_TRACE" => Ok(Action::Trace(number)),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_NOTIFY" => Err(field.wrong("another action: there is nobody to notify")),
        _ => Err(field.wrong(
            "SCMP_ACT_ and one of ALLOW, ERRNO, KILL, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP",
        )),
    }
}

/// The rules that an entry amounts to: none where it does not hold for this host.
fn rule(field: &Field<'_>, host: Host<'_>) -> Result<Vec<Rule>, Fault> {
    let object = field.object(known("syscalls[]"))?;
    let mut names = Vec::new();
    for name in list(&object, "names")? {
        names.push(name.nonempty()?);
    }
    match (given(&object, "name"), object.optional("names")) {
        (Some(_), Some(both)) => return Err(both.wrong("either `name` or `names`")),
        (Some(name), None) => names.push(name.nonempty()?),
        (None, _) => drop(object.required("names")?),
    }
    let action = action(&object, ("action", "errnoRet", "errno"))?;
    let mut conditions = Vec::new();
    for argument in list(&object, "args")? {
        conditions.push(condition(&argument)?);
    }
    let includes = given(&object, "includes").map(selection).transpose()?.unwrap_or_default();
    let excludes = given(&object, "excludes").map(selection).transpose()?.unwrap_or_default();
    if let Some(comment) = given(&object, "comment") {
        comment.text()?;
    }
    if !includes.includes(host) || excludes.excludes(host) {
        return Ok(Vec::new());
    }
    let rule = |conditions| Rule { names: names.clone(), action, conditions };
    // As libseccomp's users do: conditions on different arguments must all hold, but where one
    // argument has several, any of all.
    let mut arguments: Vec<u8> = conditions.iter().map(|condition| condition.argument).collect();
    arguments.sort_unstable();
    if arguments.is_sorted_by(|one, next| one < next) {
        return Ok(vec![rule(conditions)]);
    }
    Ok(conditions.into_iter().map(|condition| rule(vec![condition])).collect())
}

fn condition(field: &Field<'_>) -> Result<Condition, Fault> {
    let object = field.object(known("syscalls[].args[]"))?;
    let argument = u8::try_from(object.required("index")?.integer(0, 5)?).unwrap_or(0);
    let value = object.required("value")?.unsigned()?;
    let second = given(&object, "valueTwo").map_or(Ok(0), Field::unsigned)?;
    let field = object.required("op")?;
    let operator = match field.text()? {
        // Here the first value is the mask.
        "SCMP_CMP_MASKED_EQ" => {
            let operator = Operator::Equal;
            return Ok(Condition { argument, mask: value, operator, value: second & value });
        }
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        _ => return Err(field.wrong("SCMP_CMP_ and one of EQ, NE, LT, LE, GT, GE, MASKED_EQ")),
    };
    Ok(Condition { argument, mask: u64::MAX, operator, value })
}

/// `includes` or `excludes`: hosts and commands, by what they have.
#[derive(Default)]
struct Selection {
    has_capabilities: bool,
    architectures: Vec<String>,
    kernel: Option<(u32, u32)>,
}

impl Selection {
    /// The command has no capability.
    fn includes(&self, host: Host<'_>) -> bool {
        let architecture = self.architectures.is_empty() || self.names(host);
        architecture && !self.has_capabilities && self.kernel.is_none_or(|min| host.kernel >= min)
    }

    fn excludes(&self, host: Host<'_>) -> bool {
        self.names(host) || self.kernel.is_some_and(|min| host.kernel >= min)
    }

    fn names(&self, host: Host<'_>) -> bool {
        self.architectures.iter().any(|name| name == host.architecture)
    }
}

fn selection(field: &Field<'_>) -> Result<Selection, Fault> {
    let object = field.object(known("syscalls[].includes"))?;
    let mut selection = Selection::default();
    for capability in list(&object, "caps")? {
        if !capability.text()?.starts_with("CAP_") {
            return Err(capability.wrong("a capability, like \"CAP_SYS_ADMIN\""));
        }
        selection.has_capabilities = true;
    }
    for architecture in list(&object, "arches")? {
        selection.architectures.push(architecture.nonempty()?);
    }
    if let Some(version) = given(&object, "minKernel") {
        let parsed = version.text()?.split_once('.').and_then(|(major, minor)| {
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        selection.kernel =
            Some(parsed.ok_or_else(|| version.wrong("a kernel's version, like \"4.8\""))?);
    }
    Ok(selection)
}
