//! The first program inside a container: small, static, no allocator, no parser. As a hook
//! (`seal-root`, `hook`) it does what crun does not.
//!
//! It does what must be done as late as possible, after the OCI runtime: joins the user's own
//! user namespace (rootless), restores what runtimes change (CPU mask, limits, umask, signal
//! mask), puts standard input, output and error back, closes the descriptors that only plugged
//! gaps, drops the capability bounding set, loads the seccomp filters, and executes the user's
//! command, so that "not found" and "cannot execute" are told apart exactly. The block it works from: `sarus_entry`.

#![no_std]
#![no_main]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "address and access of one word belong together"
)]
#![expect(unsafe_code, reason = "without a libc every system call is this program's own")]

mod hook;
mod init;
mod kernel;
mod seal;
mod start;
mod terminal;

use kernel::{Errno, call, exit, number};
use sarus_entry::{HEADER_WORDS, MAGIC, SIZE, message, step};

/// Exit status when the engine fails, as Docker's.
const ENGINE_FAILED: i32 = 125;

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {entry}", "ud2",
    entry = sym entry
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "mov x0, sp", "and sp, x0, #-16",
    "bl {entry}", "brk #1",
    entry = sym entry
);

/// What stopped the entry: the step and the error number.
pub(crate) struct Failure(pub(crate) u8, pub(crate) Errno);

/// Names the step of an error.
pub(crate) fn at(step: u8) -> impl Fn(Errno) -> Failure {
    move |errno| Failure(step, errno)
}

/// The block, mapped privately: writing to it changes no file.
#[derive(Clone, Copy)]
pub(crate) struct Block(*mut u64);

impl Block {
    /// Maps the file behind `descriptor` and checks its first two words.
    fn map(descriptor: usize) -> Result<Self, Failure> {
        const SEEK_END: usize = 2;
        const READ_WRITE: usize = 3;
        const PRIVATE: usize = 2;
        let failed = at(step::BLOCK);
        // SAFETY: no pointers; the mapping's address is the kernel's choice.
        let size = unsafe { call(number::LSEEK, &[descriptor, 0, SEEK_END]) }.map_err(&failed)?;
        // SAFETY: as above.
        let start = unsafe { call(number::MMAP, &[0, size, READ_WRITE, PRIVATE, descriptor, 0]) }
            .map_err(&failed)?;
        let block = Self(core::ptr::with_exposed_provenance_mut(start));
        if size < HEADER_WORDS * 8 || block.word(0) != MAGIC || block.word(SIZE) != size as u64 {
            return Err(Failure(step::BLOCK, 0));
        }
        Ok(block)
    }

    /// A word of the header, or of an array whose offset the header gives.
    pub(crate) fn word(self, index: usize) -> u64 {
        // SAFETY: `map` checked that the header lies in the mapping; the offsets in it were
        // written by the shim, which made the block and is trusted by whoever started it.
        unsafe { self.0.add(index).read() }
    }

    /// A word as a descriptor or a length.
    pub(crate) fn size(self, index: usize) -> usize {
        usize::try_from(self.word(index)).unwrap_or(usize::MAX)
    }

    /// The index of the word that an offset in the header points to.
    pub(crate) fn array(self, header: usize) -> usize {
        self.size(header) / 8
    }

    /// The address of a byte of the block.
    pub(crate) fn address(self, offset: usize) -> usize {
        self.0.expose_provenance() + offset
    }

    /// Turns a list of offsets into a list of pointers and returns its address.
    pub(crate) fn pointers(self, header: usize) -> usize {
        let first = self.array(header);
        for index in first.. {
            let offset = self.word(index);
            if offset == 0 {
                break;
            }
            let pointer = self.address(usize::try_from(offset).unwrap_or(0)) as u64;
            // SAFETY: the list lies in the mapping, which is writable and private.
            unsafe {
                self.0.add(index).write(pointer);
            }
        }
        self.address(self.size(header))
    }
}

/// Called by `_start` with the stack as the kernel left it: argc, argv, 0, environ, 0.
extern "C" fn entry(stack: *const usize) -> ! {
    if let (Some(word), Some(second)) = (argument(stack, 1), argument(stack, 2)) {
        match (word.to_bytes(), argument(stack, 3), argument(stack, 4)) {
            (b"seal-root", ..) => seal::seal(second),
            (b"hook", Some(limit), Some(program)) => {
                hook::run((second, limit, program), strings(stack, 5))
            }
            _ => {}
        }
    }
    let Some(descriptor) = block_descriptor(stack) else { exit(ENGINE_FAILED) };
    let Ok(block) = Block::map(descriptor) else { exit(ENGINE_FAILED) };
    let Err(Failure(step, errno)) = start::start(block);
    report(block, step, errno);
    exit(match step {
        step::NOT_FOUND => 127,
        step::CANNOT_EXECUTE | step::NO_INTERPRETER => 126,
        _ => ENGINE_FAILED,
    })
}

/// The number in the second argument: the descriptor of the block.
fn block_descriptor(stack: *const usize) -> Option<usize> {
    argument(stack, 1)?.to_str().ok()?.parse().ok()
}

/// The addresses of the arguments from `index` on, and of the variables, as execve(2) takes them.
fn strings(stack: *const usize, index: usize) -> [usize; 2] {
    // SAFETY: the kernel puts argc, that many words of argv, and a zero before the variables.
    let argc = unsafe { stack.read() };
    let index = index.min(argc);
    // SAFETY: both lie in what the kernel put there.
    let [arguments, variables] = unsafe { [stack.add(1 + index), stack.add(2 + argc)] };
    [arguments.expose_provenance(), variables.expose_provenance()]
}

/// An argument, where there is one.
fn argument(stack: *const usize, index: usize) -> Option<&'static core::ffi::CStr> {
    // SAFETY: the kernel puts argc words of argv behind argc.
    let argc = unsafe { stack.read() };
    if index >= argc {
        return None;
    }
    // SAFETY: argv[index] exists, is closed by a NUL byte, and stays where it is.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one look at an argument")]
    let text = unsafe {
        core::ffi::CStr::from_ptr(stack.add(1 + index).read() as *const core::ffi::c_char)
    };
    Some(text)
}

/// Tells the shim what failed; when even that fails, the exit status is all there is.
pub(crate) fn report(block: Block, step: u8, errno: Errno) {
    let mut packet = [message::FAILED, step, 0, 0, 0, 0];
    packet[2..].copy_from_slice(&errno.to_ne_bytes());
    let _unheard = start::send(block.size(sarus_entry::SOCKET), &packet, None);
}
