//! The Container Device Interface, versions 0.3.0 to 1.1.0:
//! <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>.
//!
//! `request` says which devices are asked for, `registry` which specifications there are and what
//! they call a device, `spec` and `version` what a specification may say, `name` how devices are
//! called, `edits` what becomes of one, and `stale` how one is recognised that no longer fits the
//! node. Only `registry::load` reads files.

mod edits;
mod name;
mod registry;
mod request;
mod spec;
mod stale;
mod version;

use sarus_hook::{Container, Failure, Plan, Step};

pub(crate) use name::DeviceName;
pub(crate) use registry::{Registry, load};
pub(crate) use request::requested;
pub(crate) use stale::driver_version;

use crate::host::Host;
use edits::Origin;
use stale::Stale;

/// The annotation by which the engine knows that devices were given.
pub(crate) const INJECTED: &str = "com.hooks.cdi.injected";

/// Where specifications are, those of the last directory before others.
pub(crate) const DIRECTORIES: &str = "/etc/cdi:/var/run/cdi";

/// Plans the devices that are asked for, each once, in the order of the request.
///
/// # Errors
///
/// Where a device is unknown, defined twice, or no longer fits the node.
pub(crate) fn plan(
    wanted: &[DeviceName],
    registry: &Registry,
    host: &dyn Host,
    driver: Option<&str>,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for name in wanted {
        let (file, spec, device) = registry.find(name)?;
        let mut stale = Stale::new(host, driver);
        let origin = Origin { name, file };
        if !seen.contains(&file.path) {
            seen.push(file.path.clone());
            edits::plan(&spec.container_edits, &origin, &mut stale, plan)?;
        }
        edits::plan(&device.container_edits, &origin, &mut stale, plan)?;
        stale.into_result(&origin)?;
    }
    let listed: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    plan.step(
        Step::Annotation { name: INJECTED.to_owned(), value: listed.join(",") },
        "tells the engine which CDI devices the container has",
    );
    Ok(())
}

/// Whether the container was given a device of a vendor.
pub(crate) fn has_vendor(wanted: &[DeviceName], vendor: &str) -> bool {
    wanted.iter().any(|name| name.vendor == vendor)
}

/// The devices of all annotations `cdi.k8s.io/NAME`, and of variables that hold them.
///
/// # Errors
///
/// Where an annotation's name or value is not as the specification has it.
pub(crate) fn requested_of(container: &Container) -> Result<Vec<DeviceName>, Failure> {
    requested(container.annotations(), container.variable("NVIDIA_VISIBLE_DEVICES"))
}

#[cfg(test)]
mod tests;
