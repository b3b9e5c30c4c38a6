//! The hook `mount`: bind mounts and devices of the host, as its arguments say.
//!
//! Arguments and variables are those of Sarus 1.7: `docs/hooks/mount.md`.

mod arguments;
mod provider_path;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sarus_hook::elf::Elf;
use sarus_hook::{Container, Failure, Plan, Step};

use arguments::{Argument, PROVIDER_PATH};

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().skip(1).collect();
    let updates_cache = std::env::var_os("LDCONFIG_PATH").is_some_and(|path| !path.is_empty());
    sarus_hook::run("mount", |container| plan(container, &given, updates_cache))
}

fn plan(container: &Container, given: &[OsString], updates_cache: bool) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    let mut libraries = Vec::new();
    let mut providers = None;
    for argument in arguments::parse(given)? {
        match argument {
            Argument::Mount { source, destination, read_only } => {
                let destination = match destination.strip_prefix(PROVIDER_PATH) {
                    Ok(below) => {
                        let found = match &providers {
                            Some(found) => found,
                            None => providers.insert(provider_path::find(container, &mut plan)?),
                        };
                        join(found, below)
                    }
                    Err(_) => destination,
                };
                libraries.extend(library(&source, &destination));
                plan.step(
                    Step::Bind { source, destination, read_only },
                    "the hook's argument `--mount`",
                );
            }
            Argument::Device { source, destination, access } => plan.step(
                Step::Device { source, destination, access },
                "the hook's argument `--device`",
            ),
        }
    }
    if updates_cache && !libraries.is_empty() {
        plan.step(Step::LdCache { libraries }, "`LDCONFIG_PATH` is set");
    }
    Ok(plan)
}

/// `Path::join` with nothing adds a slash.
fn join(directory: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { directory.to_owned() } else { directory.join(below) }
}

/// What is told to the loader of a mounted library: the name that it has in itself (`DT_SONAME`),
/// or the file's, if it is `libNAME.so` with any version.
fn library(source: &Path, destination: &Path) -> Option<(String, PathBuf)> {
    let name = destination.file_name()?.to_str()?;
    let (stem, version) = name.split_once(".so")?;
    if !stem.starts_with("lib") || !(version.is_empty() || version.starts_with('.')) {
        return None;
    }
    let elf = File::open(source).ok().and_then(|file| Elf::read(file).ok());
    let soname = elf.and_then(|elf| elf.soname);
    Some((soname.unwrap_or_else(|| name.to_owned()), destination.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(given: &[&str]) -> Vec<OsString> {
        given.iter().map(OsString::from).collect()
    }

    #[test]
    fn mounts_and_devices_are_steps_in_the_order_given() {
        let container = Container::new(None, json!({"process": {}}));
        let given = words(&[
            "--mount=type=bind,src=/opt/a,dst=/usr/lib/liba.so.1,readonly",
            "--device=/dev/null:/dev/zero:r",
            "--mount=type=bind,src=/opt/conf,dst=/etc/opt/conf",
        ]);
        let plan = plan(&container, &given, true).unwrap();
        let steps: Vec<String> =
            plan.steps.iter().map(|planned| planned.step.to_string()).collect();
        assert_eq!(
            steps,
            [
                "mount `/opt/a` on `/usr/lib/liba.so.1` read-only",
                "show device `/dev/null` as `/dev/zero` (r)",
                "mount `/opt/conf` on `/etc/opt/conf`",
                "tell the dynamic loader of liba.so.1",
            ]
        );
    }

    #[test]
    fn the_loader_is_told_only_where_the_site_says_so() {
        let container = Container::new(None, json!({"process": {}}));
        let given = words(&["--mount=type=bind,src=/opt/a,dst=/usr/lib/liba.so.1"]);
        assert_eq!(plan(&container, &given, false).unwrap().steps.len(), 1);
    }

    #[test]
    fn the_containers_variable_says_where_providers_are() {
        let spec = json!({"process": {"env": ["FI_PROVIDER_PATH=@/opt/fi:/else"]}});
        let given =
            words(&["--mount=type=bind,src=/h/libgnix-fi.so,dst=<FI_PROVIDER_PATH>/libgnix-fi.so"]);
        let plan = plan(&Container::new(None, spec), &given, false).unwrap();
        let want = Step::Bind {
            source: "/h/libgnix-fi.so".into(),
            destination: "/opt/fi/libgnix-fi.so".into(),
            read_only: false,
        };
        assert_eq!(plan.steps[0].step, want);
        assert!(plan.notes[0].contains("/opt/fi"), "{:?}", plan.notes);
    }
}
