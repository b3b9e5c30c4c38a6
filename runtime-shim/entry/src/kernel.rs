//! The system calls of `sarus-entry`, and the functions the compiler expects of a libc.
//!
//! A table: numbers are those of `asm/unistd.h`.

use core::arch::asm;

/// A negative result of a system call, as a positive error number.
pub(crate) type Errno = i32;

#[cfg(target_arch = "x86_64")]
pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const LSEEK: usize = 8;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const SIGACTION: usize = 13;
    pub(crate) const SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const WRITEV: usize = 20;
    pub(crate) const SETITIMER: usize = 38;
    pub(crate) const RECVFROM: usize = 45;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const CLONE: usize = 56;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const UMASK: usize = 95;
    pub(crate) const GETUID: usize = 102;
    pub(crate) const GETPPID: usize = 110;
    pub(crate) const SETSID: usize = 112;
    pub(crate) const SIGTIMEDWAIT: usize = 128;
    pub(crate) const PRCTL: usize = 157;
    pub(crate) const SCHED_SETAFFINITY: usize = 203;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const FACCESSAT: usize = 269;
    pub(crate) const DUP3: usize = 292;
    pub(crate) const PRLIMIT64: usize = 302;
    pub(crate) const SETNS: usize = 308;
    pub(crate) const MOUNT_SETATTR: usize = 442;
    pub(crate) const SECCOMP: usize = 317;
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod number {
    pub(crate) const READ: usize = 63;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const LSEEK: usize = 62;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const SIGACTION: usize = 134;
    pub(crate) const SIGPROCMASK: usize = 135;
    pub(crate) const IOCTL: usize = 29;
    pub(crate) const WRITEV: usize = 66;
    pub(crate) const SETITIMER: usize = 103;
    pub(crate) const RECVFROM: usize = 207;
    pub(crate) const SENDMSG: usize = 211;
    pub(crate) const CLONE: usize = 220;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const KILL: usize = 129;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const UMASK: usize = 166;
    pub(crate) const GETUID: usize = 174;
    pub(crate) const GETPPID: usize = 173;
    pub(crate) const SETSID: usize = 157;
    pub(crate) const SIGTIMEDWAIT: usize = 137;
    pub(crate) const PRCTL: usize = 167;
    pub(crate) const SCHED_SETAFFINITY: usize = 122;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const FACCESSAT: usize = 48;
    pub(crate) const DUP3: usize = 24;
    pub(crate) const PRLIMIT64: usize = 261;
    pub(crate) const SETNS: usize = 268;
    pub(crate) const MOUNT_SETATTR: usize = 442;
    pub(crate) const SECCOMP: usize = 277;
}

/// Makes a system call.
///
/// # Safety
///
/// Pointers among the arguments must be valid for what the call does with them.
pub(crate) unsafe fn call(number: usize, arguments: &[usize]) -> Result<usize, Errno> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention for this architecture,
    // which preserves all but the ones named; the caller answers for the pointers.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") argument(0), in("rsi") argument(1), in("rdx") argument(2),
            in("r10") argument(3), in("r8") argument(4), in("r9") argument(5),
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") argument(0) => result,
            in("x1") argument(1), in("x2") argument(2), in("x3") argument(3),
            in("x4") argument(4), in("x5") argument(5),
            options(nostack)
        );
    }
    usize::try_from(result).map_err(|_negative| i32::try_from(-result).unwrap_or(i32::MAX))
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: no pointers.
        let _never = unsafe { call(number::EXIT_GROUP, &[code.unsigned_abs() as usize]) };
    }
}

/// What the compiler calls for copies; written so that it does not call itself.
#[cfg(not(test))]
mod memory {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
        for offset in 0..size {
            // SAFETY: the caller's contract is that of memcpy(3).
            unsafe { to.add(offset).write_volatile(from.add(offset).read_volatile()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
        if to.addr() <= from.addr() {
            // SAFETY: copying upwards reads each byte before it is overwritten.
            return unsafe { memcpy(to, from, size) };
        }
        for offset in (0..size).rev() {
            // SAFETY: the caller's contract is that of memmove(3).
            unsafe { to.add(offset).write_volatile(from.add(offset).read_volatile()) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, size: usize) -> *mut u8 {
        for offset in 0..size {
            // SAFETY: the caller's contract is that of memset(3).
            unsafe { to.add(offset).write_volatile(value.to_le_bytes()[0]) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, size: usize) -> i32 {
        for offset in 0..size {
            // SAFETY: the caller's contract is that of memcmp(3).
            let (a, b) =
                unsafe { (left.add(offset).read_volatile(), right.add(offset).read_volatile()) };
            if a != b {
                return i32::from(a) - i32::from(b);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut length = 0;
        // SAFETY: the caller's contract is that of strlen(3).
        while unsafe { text.add(length).read_volatile() } != 0 {
            length += 1;
        }
        length
    }

    /// Named by the standard library's own code; never called, since a panic ends the program.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
}

#[cfg(not(test))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}
