//! `--annotation`, and the options that are short for annotations by which hooks are selected.
//!
//! The names are those in use at sites. Nothing here knows what a hook does. Pure.

use std::collections::BTreeMap;

use crate::args::{HookArgs, Pid};
use crate::usage::UsageError;

/// CDI devices, comma-separated: the form of
/// <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.
pub(crate) const CDI: &str = "cdi.k8s.io/sarus";
const MPI: &str = "com.hooks.mpi.enabled";
const MPI_TYPE: &str = "com.hooks.mpi.type";
const GLIBC: &str = "com.hooks.glibc.enabled";
/// Turns on the hook of `--ssh`.
pub(crate) const SSH: &str = "com.hooks.ssh.enabled";
const SLURM_SYNC: &str = "com.hooks.slurm-global-sync.enabled";

/// The container's annotations: what `--mpi`, `--mpi-type`, `--glibc` and `--ssh` stand for, and
/// over it what `--annotation` says. `default_mpi_type` is the site's.
///
/// # Errors
///
/// A word that is not `KEY=VALUE`.
pub fn plan(
    hooks: &HookArgs,
    given: &[String],
    default_mpi_type: Option<&str>,
) -> Result<BTreeMap<String, String>, UsageError> {
    let mut annotations = BTreeMap::new();
    let mut set = |key: &str, value: &str| annotations.insert(key.to_owned(), value.to_owned());
    let mpi = hooks.mpi || hooks.mpi_type.is_some();
    if mpi {
        set(MPI, "true");
        if let Some(kind) = hooks.mpi_type.as_deref().or(default_mpi_type) {
            set(MPI_TYPE, kind);
        }
    }
    if mpi || hooks.glibc {
        set(GLIBC, "true");
    }
    if hooks.ssh {
        set(SSH, "true");
        set(SLURM_SYNC, "true");
    }
    for word in given {
        match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => set(key, value),
            _ => {
                return Err(UsageError::Value {
                    option: "--annotation",
                    given: word.clone(),
                    expected: "KEY=VALUE",
                });
            }
        };
    }
    Ok(annotations)
}

/// Whether the container has a PID namespace of its own: as asked for, and for `--ssh`.
///
/// # Errors
///
/// `--ssh` with `--pid=host`.
pub fn has_private_pid(hooks: &HookArgs, pid: Option<Pid>) -> Result<bool, UsageError> {
    match (hooks.ssh, pid) {
        (true, Some(Pid::Host)) => Err(UsageError::Conflict { one: "--ssh", other: "--pid=host" }),
        (ssh, pid) => Ok(ssh || pid == Some(Pid::Private)),
    }
}
