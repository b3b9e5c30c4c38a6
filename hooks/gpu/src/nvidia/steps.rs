//! What is done to a container that gets GPUs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sarus_hook::{Failure, Plan, Step};

use super::capability::Class;
use super::image::Image;
use super::select::{Request, Selected, Wanted, select};
use super::{HostGpus, Library};
use crate::host::below;

/// Where programs of the driver are in the container.
const PROGRAMS: &str = "/usr/bin";

/// What a plan depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'s> {
    /// Its libraries and files are those that `classes` need.
    pub(crate) host: &'s HostGpus,
    pub(crate) image: &'s Image,
    pub(crate) classes: &'s BTreeSet<Class>,
}

/// Plans nodes, libraries, files and variables.
pub(crate) fn plan(
    around: &Surroundings<'_>,
    request: &Request,
    is_precreate: bool,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let host = around.host;
    let selected = select(&request.wanted, &host.node.gpus)?;
    if selected.is_empty() && request.wanted != Wanted::DriverOnly {
        plan.note("no NVIDIA GPU: the driver shows none to this job");
        return Ok(());
    }
    nodes(around, &selected, plan);
    let version = &host.node.driver_version;
    if around.image.has_glibc {
        libraries(around, plan);
    } else {
        plan.note(format!(
            "the image has no GNU C library, which the libraries of driver {version} need: it gets the device nodes only"
        ));
    }
    files(around, plan);
    let is_renumbered = request.is_cudas && !selected.is_empty();
    if let Wanted::Listed(ids) = request.wanted.clone()
        && is_renumbered
        && is_precreate
    {
        let inside: Vec<String> = (0..selected.len()).map(|number| number.to_string()).collect();
        plan.step(
            Step::variable("NVIDIA_VISIBLE_DEVICES", ids.join(",")),
            "CUDA_VISIBLE_DEVICES says which GPUs the job has",
        );
        plan.step(
            Step::variable("CUDA_VISIBLE_DEVICES", inside.join(",")),
            "inside, the job's GPUs are numbered from 0",
        );
    }
    Ok(())
}

fn nodes(around: &Surroundings<'_>, selected: &[Selected<'_>], plan: &mut Plan) {
    let host = around.host;
    let has = |class| around.classes.contains(&class);
    let exists = |path: &str| host.nodes.iter().any(|node| node == Path::new(path));
    let device = |plan: &mut Plan, path: &str, reason: String| {
        let destination = PathBuf::from(path);
        let source = below(&host.root, &destination);
        let step = Step::Device { source, destination, access: "rw".to_owned() };
        if plan.steps.iter().all(|planned| planned.step != step) {
            plan.step(step, reason);
        }
    };
    if exists("/dev/nvidiactl") {
        device(plan, "/dev/nvidiactl", "the driver's own node".to_owned());
    } else {
        plan.note("there is no /dev/nvidiactl: nothing that uses the driver starts");
    }
    if has(Class::Compute) {
        if !exists("/dev/nvidia-uvm") {
            plan.note(
                "there is no /dev/nvidia-uvm: load the module nvidia-uvm, or CUDA does not start",
            );
        }
        for path in ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"] {
            if exists(path) {
                device(plan, path, "unified memory".to_owned());
            }
        }
        for node in host.nodes.iter().filter_map(|node| node.to_str()) {
            if node.starts_with("/dev/nvidia-caps-imex-channels/") {
                device(plan, node, "memory shared between nodes".to_owned());
            } else if node.starts_with("/dev/gdrdrv") || is_nvidia_fs(node) {
                device(plan, node, "direct access to GPU memory".to_owned());
            }
        }
    }
    if (has(Class::Graphics) || has(Class::Display)) && exists("/dev/nvidia-modeset") {
        device(plan, "/dev/nvidia-modeset", "graphics".to_owned());
    }
    for found in selected {
        let (gpu, parts) = (found.gpu, &found.parts);
        let reason = format!("GPU {} ({}) is asked for", gpu.index, gpu.uuid);
        device(plan, &format!("/dev/nvidia{}", gpu.minor), reason);
        for part in parts {
            let reason = format!("MIG device {}:{} ({})", gpu.index, part.index, part.uuid);
            let rights = host.capabilities.iter().filter(|right| {
                let instance = right.compute_instance;
                right.gpu == gpu.minor
                    && right.gpu_instance == part.gpu_instance
                    && instance.is_none_or(|instance| instance == part.compute_instance)
            });
            for right in rights {
                let path = format!("/dev/nvidia-caps/nvidia-cap{}", right.minor);
                device(plan, &path, reason.clone());
            }
        }
    }
}

/// `/dev/nvidia-fs0` and so on: files straight into GPU memory.
fn is_nvidia_fs(node: &str) -> bool {
    let number = node.strip_prefix("/dev/nvidia-fs");
    number.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The links by which programs find a library: what each says, and where it is.
pub(crate) fn links(library: &Library, image: &Image) -> Vec<(PathBuf, PathBuf)> {
    let directory = if library.is_32 { &image.libraries_32 } else { &image.libraries };
    let mut links = Vec::new();
    if let Some(file) = library.path.file_name().filter(|file| *file != library.soname.as_str()) {
        links.push((PathBuf::from(file), directory.join(&library.soname)));
    }
    let soname = &library.soname;
    let other = match library.name.as_str() {
        name @ ("libcuda.so" | "libnvidia-opticalflow.so") => Some(name),
        "libGLX_nvidia.so" => Some("libGLX_indirect.so.0"),
        _ => None,
    };
    links.extend(other.map(|name| (PathBuf::from(soname), directory.join(name))));
    links
}

fn libraries(around: &Surroundings<'_>, plan: &mut Plan) {
    let Surroundings { host, image, .. } = around;
    let version = &host.node.driver_version;
    let mut listed = Vec::new();
    for library in &host.libraries {
        let directory = if library.is_32 { &image.libraries_32 } else { &image.libraries };
        let Some(file) = library.path.file_name() else { continue };
        let source = below(&host.root, &library.path);
        let reason = format!("a library of driver {version}");
        plan.step(Step::bind(&source, directory.join(file)), &reason);
        for (target, destination) in links(library, image) {
            if image.occupied.contains(&destination) {
                let reason = format!("{reason}, in place of the image's");
                plan.step(Step::bind(&source, destination), reason);
            } else {
                plan.step(Step::Link { target, destination }, &reason);
            }
        }
        if !library.is_32 {
            listed.push((library.soname.clone(), directory.join(&library.soname)));
        }
    }
    if let Some(compat) = &image.compat {
        let shown = format!(
            "{} in the image are of driver {}",
            "the libraries in /usr/local/cuda/compat", compat.version
        );
        if major(&compat.version) > major(version) {
            plan.note(format!("{shown}, newer than {version}, and are used"));
            listed.retain(|(soname, _)| compat.libraries.iter().all(|(other, _)| other != soname));
            listed.extend(compat.libraries.iter().cloned());
        } else {
            plan.note(format!("{shown}, not newer than {version}, and are not used"));
        }
    }
    if !listed.is_empty() {
        plan.step(
            Step::LdCache { libraries: listed },
            "programs find the driver's libraries by the loader's cache",
        );
    }
}

/// The first number of a version.
fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn files(around: &Surroundings<'_>, plan: &mut Plan) {
    for file in &around.host.files {
        let is_program = super::capability::PROGRAMS
            .iter()
            .any(|(name, _)| file.file_name().is_some_and(|found| found == *name));
        let (destination, reason) = match (is_program, file.file_name()) {
            (true, Some(name)) => (Path::new(PROGRAMS).join(name), "a program of the driver"),
            _ => (file.clone(), "a file of the driver"),
        };
        // Sockets are written to.
        let read_only = !file.starts_with("/run") && !file.starts_with("/tmp");
        let source = below(&around.host.root, file);
        plan.step(Step::Bind { source, destination, read_only }, reason);
    }
}

#[cfg(test)]
mod tests;
