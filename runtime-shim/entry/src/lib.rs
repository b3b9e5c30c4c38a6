//! The block: what `sarus-shim` tells `sarus-entry`, the first program inside a container.
//!
//! `sarus-entry` has no allocator and no parser. The block is therefore memory it can use as it
//! is: a header of 64-bit words in the machine's byte order, then arrays that the header points
//! to by offset. Lists of strings are arrays of offsets closed by a zero word, so that the entry
//! turns them into the pointer arrays of `execve(2)` in place.
//!
//! Both programs are built and installed together; [`MAGIC`] refuses a mixture of versions.

#![no_std]

/// First word of a block. The last byte is the version.
pub const MAGIC: u64 = 0x5341_5255_5345_4e03;

/// Words of the header, each 8 bytes; see the constants below for what is where.
pub const HEADER_WORDS: usize = 23;

/// Whole size of the block in bytes.
pub const SIZE: usize = 1;
/// Bits of [`flag`].
pub const FLAGS: usize = 2;
/// Descriptor of the user namespace to join, with [`flag::JOIN_USER_NAMESPACE`].
pub const USER_NAMESPACE: usize = 3;
/// Descriptor of the socket to the shim (sequential packets).
pub const SOCKET: usize = 4;
/// Descriptors that become 0, 1 and 2, without [`flag::TERMINAL`]: three words.
pub const STDIO: usize = 5;
/// The umask of the caller.
pub const UMASK: usize = 8;
/// The signal mask of the caller, as the kernel keeps it.
pub const SIGNAL_MASK: usize = 9;
/// Offset and length in bytes of the CPU mask; length 0 leaves the mask alone. Two words.
pub const AFFINITY: usize = 10;
/// Offset and count of the descriptors to close, a word each. Two words.
pub const CLOSE: usize = 12;
/// Offset of the list of arguments.
pub const ARGUMENTS: usize = 14;
/// Offset of the list of variables.
pub const ENVIRONMENT: usize = 15;
/// Offset of the resource limits: [`LIMITS_COUNT`] pairs of soft and hard, by resource number.
pub const LIMITS: usize = 16;
/// Offset of the search path, a list of directories that each end in `/`.
pub const SEARCH_PATH: usize = 17;
/// The signals that the caller ignores, as a mask like [`SIGNAL_MASK`].
pub const IGNORED_SIGNALS: usize = 18;

/// Offset and count of the seccomp filters, which lie behind each other. Each is two words, the
/// flags of seccomp(2) and the count of instructions, then the instructions, a word each. Two words.
pub const SECCOMP: usize = 19;

/// Offset and count of the descriptors to make again under another number: pairs of words, from
/// and to. Two words.
pub const MOVES: usize = 21;

/// Resources with a limit in Linux (`RLIM_NLIMITS`).
pub const LIMITS_COUNT: usize = 16;

/// Bits of the word [`FLAGS`].
pub mod flag {
    /// Join the user namespace, in which the user has their own ids (rootless).
    pub const JOIN_USER_NAMESPACE: u64 = 1;
    /// Make a pseudo-terminal, send its master to the shim, and use its slave as 0, 1 and 2.
    pub const TERMINAL: u64 = 2;
    /// Stay as an init: run the command as a child, reap, forward signals.
    pub const INIT: u64 = 4;
}

/// What the two say to each other: one packet each.
pub mod message {
    /// Entry to shim: set up so far; carries the terminal's master, if there is one.
    pub const READY: u8 = b'R';
    /// Shim to entry: the runtime is done, execute the command.
    pub const GO: u8 = b'G';
    /// Entry to shim: it failed. Then the [`crate::step`] and the error number, four bytes.
    pub const FAILED: u8 = b'E';
    /// Length of a [`FAILED`] packet.
    pub const FAILED_SIZE: usize = 6;
}

/// What `sarus-entry hook` says of a hook on its standard error, around what the hook itself writes
/// there: [`mark::STARTED`], the hook's number, a space, its program, a newline; then, unless both
/// were killed, one of the other marks, a decimal number, a newline.
pub mod mark {
    /// Before the hook starts.
    pub const STARTED: u8 = 0x02;
    /// After it has ended; the number is its status as wait(2) has it.
    pub const ENDED: u8 = 0x03;
    /// It could not be executed; the number is the error's.
    pub const NOT_EXECUTED: u8 = 0x15;
    /// It was killed since its time was over.
    pub const TIMED_OUT: u8 = 0x18;
}

/// The step that failed.
pub mod step {
    /// The block is not one.
    pub const BLOCK: u8 = 1;
    /// The pseudo-terminal could not be made.
    pub const TERMINAL: u8 = 2;
    /// The user namespace could not be joined.
    pub const USER_NAMESPACE: u8 = 3;
    /// A limit, the CPU mask or a descriptor could not be restored.
    pub const RESTORE: u8 = 4;
    /// The privileges could not be given up.
    pub const PRIVILEGES: u8 = 5;
    /// The program was not found.
    pub const NOT_FOUND: u8 = 6;
    /// The program exists and cannot be executed.
    pub const CANNOT_EXECUTE: u8 = 7;
    /// The program exists, and the interpreter it names does not.
    pub const NO_INTERPRETER: u8 = 8;
    /// The kernel did not take a seccomp filter.
    pub const SECCOMP: u8 = 9;
}
