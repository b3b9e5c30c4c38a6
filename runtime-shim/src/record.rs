//! The record of a running container, for `sarus ps`, `kill` and `exec`: in a memory file that the
//! supervisor holds, so that it ends with it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sarus_launch::{RECORD_NAME, RECORD_VERSION, RawString, Record};
use sarus_sys::process::start_time;

use crate::construct::Plan;
use crate::error::{ShimError, cannot};
use crate::mode::Mode;

/// Writes the record; the container can be found as long as what is returned is open.
pub(crate) fn write(
    plan: &Plan<'_>,
    process: i32,
    (workdir, environment): (&Path, &OwnedFd),
) -> Result<OwnedFd, ShimError> {
    let failed = cannot("write the container's record");
    let mut variables = Vec::new();
    let mut file = std::fs::File::from(environment.try_clone().map_err(&failed)?);
    std::io::Seek::rewind(&mut file).map_err(&failed)?;
    file.read_to_end(&mut variables).map_err(&failed)?;
    let entries = variables.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let raw = |bytes: &[u8]| RawString::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    let request = plan.run.request;
    let record = Record {
        version: RECORD_VERSION,
        id: plan.id.clone(),
        supervisor: plan.run.supervisor,
        process,
        process_started: start_time(process).unwrap_or(0),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        image: request.image.name.clone(),
        command: request.command.args.clone(),
        env: entries.map(raw).collect(),
        workdir: RawString::from(workdir.as_os_str()),
        privileged: plan.run.mode == Mode::Privileged,
    };
    let json = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create(RECORD_NAME, flags).map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&json).map_err(&failed)?;
    let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    fcntl_add_seals(&file, seals).map_err(|e| failed(e.into()))?;
    Ok(file.into())
}
