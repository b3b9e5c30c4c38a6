//! `sarus-entry seal-root PATH`: a hook of the stage `createContainer`.
//!
//! crun drops `nosuid` and `nodev` of the root file system that it is given. With privilege that
//! would make device nodes of an image usable, so they are set again, in the container's mount
//! namespace, before anything of the image runs. Here and not in the shim, since a program without
//! libraries starts in a fraction of the time. Whoever starts it by hand needs `CAP_SYS_ADMIN`.

use core::ffi::CStr;

use crate::kernel::{call, exit, number};

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// Restricts the mount at `path`, not those below it, and ends.
pub(crate) fn seal(path: &CStr) -> ! {
    drain();
    // struct mount_attr: set, clear, propagation, user namespace.
    let attributes = [MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0_u64];
    let place = path.as_ptr().expose_provenance();
    let request = attributes.as_ptr().expose_provenance();
    let size = size_of_val(&attributes);
    let arguments = [AT_FDCWD, place, AT_SYMLINK_NOFOLLOW, request, size];
    // SAFETY: the path is closed by a NUL byte, and the structure lives and is as long as said.
    let sealed = unsafe { call(number::MOUNT_SETATTR, &arguments) };
    exit(if sealed.is_ok() { 0 } else { crate::ENGINE_FAILED })
}

/// crun takes it for a failure when nobody reads the state that it writes.
fn drain() {
    let mut buffer = [0_u8; 512];
    loop {
        let arguments = [0, buffer.as_mut_ptr().expose_provenance(), buffer.len()];
        // SAFETY: the buffer is as long as said.
        match unsafe { call(number::READ, &arguments) } {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
