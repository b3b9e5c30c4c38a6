//! fs-verity: files whose content the kernel checks at every read.
//!
//! <https://docs.kernel.org/filesystems/fsverity.html>

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IOWR('f', 134, struct fsverity_digest)`; the structure's fixed part has 4 bytes.
const FS_IOC_MEASURE_VERITY: u64 = 0xc004_6686;

const SHA256: u16 = 1;
const SHA512: u16 = 2;

/// Longest digest: SHA-512.
const DIGEST_SIZE_MAX: usize = 64;

/// `struct fsverity_digest` with room for a digest.
#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    bytes: [u8; DIGEST_SIZE_MAX],
}

/// The digest of a file under fs-verity, as `sha256:HEX` or `sha512:HEX`.
///
/// # Errors
///
/// `ENODATA` if the file is not under fs-verity; `ENOTTY` or `EOPNOTSUPP` where file system or
/// kernel have none.
#[expect(unsafe_code, reason = "ioctl(2)")]
pub fn measure(file: BorrowedFd<'_>) -> io::Result<String> {
    let size = u16::try_from(DIGEST_SIZE_MAX).unwrap_or_default();
    let mut digest = Digest { algorithm: 0, size, bytes: [0; DIGEST_SIZE_MAX] };
    let request = FS_IOC_MEASURE_VERITY as libc::Ioctl;
    // SAFETY: the structure lives until the call returns, and says how much room it has.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(&mut digest)) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let name = match digest.algorithm {
        SHA256 => "sha256",
        SHA512 => "sha512",
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    let bytes = digest.bytes.iter().take(usize::from(digest.size));
    Ok(format!("{name}:{}", bytes.map(|byte| format!("{byte:02x}")).collect::<String>()))
}
