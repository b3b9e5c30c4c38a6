//! `sarus-fuse IMAGE_FD FUSE_FD [OFFSET]`: serves a squashfs image to a FUSE mount, until it is
//! gone. OFFSET is the byte of the file at which the image begins.
//!
//! Both are numbers of inherited descriptors: the image, opened, and `/dev/fuse` with the mount
//! made. Belongs to nobody: signals do not end it, the kernel does, when the last mount namespace
//! with the mount is gone.

use std::error::Error;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use sarus_fuse::{Server, serve};
use sarus_squash::Image;

/// What a terminal, a launcher or a batch system sends to all processes of a job.
const IGNORED: [Signal; 11] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::TSTP,
    Signal::TTIN,
    Signal::TTOU,
    Signal::USR1,
    Signal::USR2,
    Signal::PIPE,
    Signal::XCPU,
];

/// On few CPUs, too, some threads wait for storage or for others' blocks while one can read ahead.
const THREADS_MIN: usize = 4;
const THREADS_MAX: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<&str> =
        arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
    match arguments.as_slice() {
        ["--version"] => version(),
        [image, device, offset @ ..] if image != device && offset.len() < 2 => {
            match run(image, device, offset.first().unwrap_or(&"0")) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&*error),
            }
        }
        _ => complain(&*Box::<dyn Error>::from("usage: sarus-fuse IMAGE_FD FUSE_FD [OFFSET]")),
    }
}

fn run(image: &str, device: &str, offset: &str) -> Result<(), Box<dyn Error>> {
    let offset = offset.parse().map_err(|_no_number| format!("`{offset}` is no offset"))?;
    let file = File::from(adopt(image)?);
    let device = adopt(device)?;
    sarus_sys::signals::ignore(&IGNORED);
    // The job's CPUs, not those of the rank that happened to come first. Fewer are no failure.
    let _fewer_cpus = sarus_sys::process::use_all_cpus();
    let lists_trusted = is_initial_namespace();
    // What runs in the container has the same user id: it cannot look into this process.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let image = Image::open_at(&file, offset)?;
    let server = Server::new(&image, sarus_sys::process::page_size(), lists_trusted);
    Ok(serve(&server, device.as_fd(), threads())?)
}

fn adopt(number: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let parsed = number.parse().map_err(|_no_number| format!("`{number}` is no descriptor"))?;
    let adopted = sarus_sys::process::adopt_descriptor(parsed);
    adopted.map_err(|error| format!("cannot use descriptor {number}: {error}").into())
}

/// Whether every id is mapped to itself, as it is in the initial user namespace only.
fn is_initial_namespace() -> bool {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn threads() -> usize {
    let mask = sarus_sys::process::affinity().unwrap_or_default();
    let cpus = mask.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
    cpus.clamp(THREADS_MIN, THREADS_MAX)
}

#[expect(clippy::print_stdout, reason = "the version is what was asked for")]
fn version() -> ExitCode {
    println!("sarus-fuse {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

fn complain(error: &dyn Error) -> ExitCode {
    let mut text = format!("sarus-fuse: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("  caused by: {error}\n");
        cause = error.source();
    }
    use std::io::Write;
    let _nobody_reads = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
