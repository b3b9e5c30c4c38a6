//! OCI hook `gpu`: GPUs and other devices of the node in the container.
//!
//! Devices come by CDI, when somebody asks for one by its name (`cdi`); else NVIDIA's as the
//! driver's library and the loader's cache of the host have them (`nvidia`), and AMD's as the kernel
//! shows them (`amd`). Each has a half that looks at the host and a half that plans and does no
//! I/O. What each decides: `docs/hooks/gpu.md`.

mod amd;
mod cdi;
mod host;
mod nvidia;
mod settings;

use std::path::Path;

use sarus_hook::{Container, Failure, Plan};

use crate::host::{RealHost, below};

fn main() -> std::process::ExitCode {
    sarus_hook::run("gpu", plan)
}

fn plan(container: &Container) -> Result<Plan, Failure> {
    let settings = settings::read(|name| std::env::var(name).ok())?;
    let mut plan = Plan::default();
    let wanted = cdi::requested_of(container)?;
    if !wanted.is_empty() {
        let registry = cdi::load(settings.cdi_directories.clone(), &RealHost);
        let driver = loaded_driver(&settings.host_root);
        cdi::plan(&wanted, &registry, &RealHost, driver.as_deref(), &mut plan)?;
    }
    if cdi::has_vendor(&wanted, "nvidia.com") {
        plan.note("NVIDIA GPUs come by CDI: what other variables ask for is left to it");
    } else {
        nvidia::plan(container, &settings, &mut plan)?;
    }
    if cdi::has_vendor(&wanted, "amd.com") {
        plan.note("AMD GPUs come by CDI: what other variables ask for is left to it");
    } else {
        amd::plan(container, &settings, &mut plan)?;
    }
    Ok(plan)
}

/// The version of the NVIDIA driver that the kernel has loaded.
fn loaded_driver(root: &Path) -> Option<String> {
    let path = below(root, Path::new("/proc/driver/nvidia/version"));
    let text = fs_err::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| {
        word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    line.split_whitespace().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_drivers_version_is_found_in_both_forms_of_its_file() {
        for line in [
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (user@host)  Sat",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let directory = folder.path().join("proc/driver/nvidia");
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join("version"), format!("{line}\nGCC version: 12.2.0\n"))
                .unwrap();
            assert_eq!(loaded_driver(folder.path()).as_deref(), Some("535.104.05"));
        }
        assert_eq!(loaded_driver(Path::new("/nonexistent")), None);
    }
}
