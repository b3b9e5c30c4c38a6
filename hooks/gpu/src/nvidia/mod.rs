//! NVIDIA GPUs without CDI: nodes, the driver's libraries and programs, as the node has them.
//!
//! `select` reads what is asked for, `capability` what of the driver that takes, `driver` looks at
//! the host, `image` at the image (in a process without rights), and `steps` plans and does no I/O.
//! The variables are those of NVIDIA's own container tools:
//! <https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html>.

mod capability;
mod driver;
mod image;
mod select;
mod steps;

use std::path::PathBuf;

use sarus_hook::{Container, Failure, Plan};
use sarus_nvml::Node;

use crate::settings::Settings;
use select::Wanted;

/// The driver of a node and its GPUs.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostGpus {
    /// What the driver's library says.
    pub(crate) node: Node,
    /// Libraries of the driver.
    pub(crate) libraries: Vec<Library>,
    /// Programs and other files of the driver that exist.
    pub(crate) files: Vec<PathBuf>,
    /// Device nodes of the driver that exist.
    pub(crate) nodes: Vec<PathBuf>,
    /// The nodes by which MIG devices are opened.
    pub(crate) capabilities: Vec<Capability>,
    /// Below which all these paths are; the container has them without.
    pub(crate) root: PathBuf,
}

/// A library of the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    /// Its name in the driver, without a version: `libcuda.so`.
    pub(crate) name: String,
    /// Name by which programs ask for it: `libcuda.so.1`.
    pub(crate) soname: String,
    /// The file itself: `/usr/lib64/libcuda.so.535.104.05`.
    pub(crate) path: PathBuf,
    /// For programs of 32 bits.
    pub(crate) is_32: bool,
}

/// What the kernel says of the right to use a part of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capability {
    /// Minor number of the GPU.
    pub(crate) gpu: u32,
    pub(crate) gpu_instance: u32,
    /// None is the whole GPU instance.
    pub(crate) compute_instance: Option<u32>,
    /// The number in `/dev/nvidia-caps/nvidia-capNUMBER`.
    pub(crate) minor: u32,
}

/// Plans the GPUs that the container's variables ask for.
///
/// # Errors
///
/// Where there is a driver, and it does not answer or has not what is asked for.
pub(crate) fn plan(
    container: &Container,
    settings: &Settings,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let request = select::read(|name| container.variable(name));
    if request.wanted == Wanted::Nothing {
        plan.note("no NVIDIA GPU: NVIDIA_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES ask for none");
        return Ok(());
    }
    let classes = capability::parse(container.variable("NVIDIA_DRIVER_CAPABILITIES"))?;
    let root = &settings.host_root;
    let Some(mut host) = driver::look(root)? else {
        plan.note(format!("no NVIDIA GPU: no driver is loaded; asked for were {request}"));
        return Ok(());
    };
    host.libraries.retain(|library| capability::has_library(&classes, library));
    host.files.retain(|file| capability::has_file(&classes, file));
    let image = image::look(container, &host)?;
    let surroundings = steps::Surroundings { host: &host, image: &image, classes: &classes };
    let is_precreate = container.is_precreate();
    steps::plan(&surroundings, &request, is_precreate, plan)?;
    if let Some(variable) = container.variables().keys().find(|n| n.starts_with("NVIDIA_REQUIRE_"))
    {
        plan.note(format!("{variable} is not evaluated: whether the driver is new enough shows when the program starts"));
    }
    Ok(())
}
