//! The profile that holds where the site configures none. Its reasons: `docs/CONFIGURATION.md`,
//! "System calls".
//!
//! It lets everything but what is listed here: MPI, debuggers, profilers and GPU drivers use more of
//! the kernel than any list of what is common. The command has no capability, so most of this only
//! takes away what the kernel would refuse, if it has no error.

use sarus_config::seccomp::{Action, Condition, Operator, Profile, Rule};

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// Fail with EPERM.
const REFUSED: &[&str] = &[
    // Keys are the session's, in no namespace.
    "add_key",
    "keyctl",
    "request_key",
    // Programs in the kernel.
    "bpf",
    // Mounts and namespaces: the container's are made.
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "pivot_root",
    "setns",
    "umount2",
    // Files by number, past every directory's permissions.
    "open_by_handle_at",
    // The kernel, its modules and memory.
    "create_module",
    "delete_module",
    "finit_module",
    "get_kernel_syms",
    "init_module",
    "kexec_file_load",
    "kexec_load",
    "lookup_dcookie",
    "query_module",
    "uselib",
    // The machine.
    "acct",
    "clock_settime",
    "ioperm",
    "iopl",
    "nfsservctl",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "settimeofday",
    "swapoff",
    "swapon",
];

/// Fail as on a kernel without them: programs have another way.
const ABSENT: &[&str] = &[
    // Its flags lie in memory, where no filter sees them; C libraries use `clone` instead.
    "clone3",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;
/// For `unshare`; among the flags of `clone` it is part of a signal's number.
const CLONE_NEWTIME: u64 = 0x80;
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const ADDR_NO_RANDOMIZE: u64 = 0x4_0000;
const UFFD_USER_MODE_ONLY: u64 = 1;
/// An argument of which the kernel uses 32 bits, whatever the others are.
const INT: u64 = 0xffff_ffff;

/// The built-in profile.
pub(super) fn profile() -> Profile {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let always = |names, action| Rule { names: named(names), action, conditions: Vec::new() };
    let when = |name, conditions: &[Condition]| Rule {
        names: named(&[name]),
        action: EPERM,
        conditions: conditions.to_vec(),
    };
    let rules = vec![
        always(REFUSED, EPERM),
        always(ABSENT, ENOSYS),
        when("clone", &[other_than(0, NEW_NAMESPACES, 0)]),
        when("unshare", &[other_than(0, NEW_NAMESPACES | CLONE_NEWTIME, 0)]),
        when("ioctl", &[equal(1, INT, TIOCSTI)]),
        when("ioctl", &[equal(1, INT, TIOCLINUX)]),
        when("userfaultfd", &[equal(0, UFFD_USER_MODE_ONLY, 0)]),
        when(
            "personality",
            &[
                other_than(0, INT, 0),
                other_than(0, INT, ADDR_NO_RANDOMIZE),
                other_than(0, INT, INT),
            ],
        ),
    ];
    Profile { default: Action::Allow, rules, log: false, mitigate_speculation: false }
}

fn equal(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, mask, operator: Operator::Equal, value }
}

fn other_than(argument: u8, mask: u64, value: u64) -> Condition {
    Condition { argument, mask, operator: Operator::NotEqual, value }
}

#[cfg(test)]
mod tests {
    use super::super::syscalls::Machine;
    use super::*;

    #[test]
    fn every_name_is_a_call_of_some_machine() {
        for name in profile().rules.iter().flat_map(|rule| &rule.names) {
            let has = |machine: Machine| machine.number(name).is_some();
            assert!(has(Machine::X86_64) || has(Machine::Aarch64), "{name}");
        }
    }
}
