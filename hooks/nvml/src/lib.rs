//! The GPUs of a node, as the NVIDIA driver's management library (NVML) says.
//!
//! The library belongs to the driver of the node, so it is loaded at run time and from the path
//! that the caller found. Only what a container needs is asked: identities, minor numbers and MIG
//! devices. Functions: <https://docs.nvidia.com/deploy/nvml-api/>.
//!
//! All unsafe code is in `library`. This crate knows nothing of containers.

mod library;

use std::path::{Path, PathBuf};

use library::{Device, Nvml};

/// What NVML says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The driver's version, such as `535.104.05`.
    pub driver_version: String,
    /// The newest CUDA version that the driver serves: major and minor.
    pub cuda_version: Option<(u32, u32)>,
    /// The GPUs that this process may use, in NVML's order, which is that of their bus addresses.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gpu {
    /// Its place in NVML's order.
    pub index: u32,
    /// `GPU-` and a UUID.
    pub uuid: String,
    /// The number in `/dev/nvidiaNUMBER`, which need not be the index.
    pub minor: u32,
    /// Its MIG devices; empty where MIG is off.
    pub mig: Vec<Mig>,
}

/// One part of a GPU that is a device of its own: a compute instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mig {
    /// Its place among those of its GPU.
    pub index: u32,
    /// `MIG-` and a UUID, or with drivers before 470 `MIG-GPU-UUID/GI/CI`.
    pub uuid: String,
    /// Number of its GPU instance.
    pub gpu_instance: u32,
    /// Number of its compute instance in the GPU instance.
    pub compute_instance: u32,
}

/// Why NVML did not answer.
#[derive(Debug, thiserror::Error)]
pub enum NvmlError {
    /// The library cannot be loaded.
    #[error("cannot load `{}`", path.display())]
    Load {
        /// Its path.
        path: PathBuf,
        /// The loader's words.
        source: libloading::Error,
    },
    /// The library has not a function that every version has.
    #[error("the library has no `{name}`")]
    Symbol {
        /// The function.
        name: &'static str,
        /// The loader's words.
        source: libloading::Error,
    },
    /// A function failed.
    #[error("`{function}` returned {code} ({})", meaning(*code))]
    Call {
        /// The function.
        function: &'static str,
        /// `nvmlReturn_t`.
        code: u32,
    },
}

/// `NVML_ERROR_NOT_SUPPORTED`
const NOT_SUPPORTED: u32 = 3;
/// `NVML_ERROR_NO_PERMISSION`
const NO_PERMISSION: u32 = 4;
/// `NVML_ERROR_NOT_FOUND`
const NOT_FOUND: u32 = 6;
/// `NVML_ERROR_DRIVER_NOT_LOADED`
const DRIVER_NOT_LOADED: u32 = 9;
/// `NVML_ERROR_GPU_IS_LOST`
const GPU_IS_LOST: u32 = 15;
/// `NVML_ERROR_LIB_RM_VERSION_MISMATCH`
const VERSION_MISMATCH: u32 = 18;

fn meaning(code: u32) -> &'static str {
    match code {
        NOT_SUPPORTED => "not supported",
        NO_PERMISSION => "no permission",
        NOT_FOUND => "not found",
        DRIVER_NOT_LOADED => "the driver is not loaded",
        12 => "a library of the driver is missing",
        GPU_IS_LOST => "the GPU is lost",
        VERSION_MISMATCH => "the library and the loaded driver are of different versions",
        _ => "no more is known",
    }
}

impl NvmlError {
    /// Whether there is no driver at work.
    pub fn is_without_driver(&self) -> bool {
        matches!(self, Self::Call { code: DRIVER_NOT_LOADED, .. })
    }

    /// Whether the driver was updated without being loaded anew.
    pub fn is_version_mismatch(&self) -> bool {
        matches!(self, Self::Call { code: VERSION_MISMATCH, .. })
    }
}

/// Asks the library at `path` for the node's GPUs. GPUs that this process may not use, or that are
/// lost, are left out. Loading executes the library's code: the path must be one of the host's own.
///
/// # Errors
///
/// Where the library cannot be loaded, or does not answer.
pub fn ask(path: &Path) -> Result<Node, NvmlError> {
    log::debug!("loading `{}`", path.display());
    let nvml = Nvml::start(path)?;
    let mut node = Node {
        driver_version: nvml.driver_version()?,
        cuda_version: nvml.cuda_version(),
        gpus: Vec::new(),
    };
    for index in 0..nvml.count()? {
        match gpu(&nvml, index) {
            Ok(gpu) => node.gpus.push(gpu),
            Err(NvmlError::Call { code: code @ (NO_PERMISSION | GPU_IS_LOST), .. }) => {
                log::debug!("GPU {index} is left out: {}", meaning(code));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(node)
}

fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let device = nvml.device(index)?;
    Ok(Gpu {
        index,
        uuid: nvml.uuid(device)?,
        minor: nvml.minor(device)?,
        mig: migs(nvml, device)?,
    })
}

fn migs(nvml: &Nvml, device: Device) -> Result<Vec<Mig>, NvmlError> {
    if !nvml.has_mig(device)? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for index in 0..nvml.mig_count(device)? {
        // Numbers have gaps where instances were removed.
        let Some(part) = nvml.mig(device, index)? else { continue };
        found.push(Mig {
            index,
            uuid: nvml.uuid(part)?,
            gpu_instance: nvml.gpu_instance(part)?,
            compute_instance: nvml.compute_instance(part)?,
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_the_function_and_what_its_code_means() {
        let error = NvmlError::Call { function: "nvmlInit_v2", code: 9 };
        assert_eq!(error.to_string(), "`nvmlInit_v2` returned 9 (the driver is not loaded)");
        assert!(error.is_without_driver());
        assert!(!error.is_version_mismatch());
    }

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = ask(Path::new("/nonexistent/libnvidia-ml.so.1")).unwrap_err();
        assert_eq!(error.to_string(), "cannot load `/nonexistent/libnvidia-ml.so.1`");
    }
}
