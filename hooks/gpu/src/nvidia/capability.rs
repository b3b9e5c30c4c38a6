//! What of the driver a container gets: the classes of `NVIDIA_DRIVER_CAPABILITIES`.
//!
//! The tables are the names that the driver's packages use.

use std::collections::BTreeSet;
use std::path::Path;

use sarus_hook::Failure;

use super::Library;

/// A class of the driver's capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Compute,
    Compat32,
    Graphics,
    Utility,
    Video,
    Display,
    Ngx,
}

const NAMES: [(&str, Class); 7] = [
    ("compute", Class::Compute),
    ("compat32", Class::Compat32),
    ("graphics", Class::Graphics),
    ("utility", Class::Utility),
    ("video", Class::Video),
    ("display", Class::Display),
    ("ngx", Class::Ngx),
];

/// Libraries, each with the class that needs it.
pub(crate) const LIBRARIES: &[(&str, Class)] = &[
    ("libnvidia-ml.so", Class::Utility),
    ("libnvidia-cfg.so", Class::Utility),
    ("libnvidia-nscq.so", Class::Utility),
    ("libcuda.so", Class::Compute),
    ("libcudadebugger.so", Class::Compute),
    ("libnvidia-opencl.so", Class::Compute),
    ("libnvidia-gpucomp.so", Class::Compute),
    ("libnvidia-ptxjitcompiler.so", Class::Compute),
    ("libnvidia-fatbinaryloader.so", Class::Compute),
    ("libnvidia-allocator.so", Class::Compute),
    ("libnvidia-compiler.so", Class::Compute),
    ("libnvidia-nvvm.so", Class::Compute),
    ("libnvidia-nvvm70.so", Class::Compute),
    ("libnvidia-pkcs11.so", Class::Compute),
    ("libnvidia-pkcs11-openssl3.so", Class::Compute),
    ("libnvidia-sandboxutils.so", Class::Compute),
    ("libnvidia-tileiras.so", Class::Compute),
    ("libvdpau_nvidia.so", Class::Video),
    ("libnvidia-encode.so", Class::Video),
    ("libnvidia-opticalflow.so", Class::Video),
    ("libnvcuvid.so", Class::Video),
    ("libnvidia-eglcore.so", Class::Graphics),
    ("libnvidia-glcore.so", Class::Graphics),
    ("libnvidia-tls.so", Class::Graphics),
    ("libnvidia-glsi.so", Class::Graphics),
    ("libnvidia-fbc.so", Class::Graphics),
    ("libnvidia-ifr.so", Class::Graphics),
    ("libnvidia-rtcore.so", Class::Graphics),
    ("libnvoptix.so", Class::Graphics),
    ("libGLX_nvidia.so", Class::Graphics),
    ("libEGL_nvidia.so", Class::Graphics),
    ("libGLESv2_nvidia.so", Class::Graphics),
    ("libGLESv1_CM_nvidia.so", Class::Graphics),
    ("libnvidia-glvkspirv.so", Class::Graphics),
    ("libnvidia-cbl.so", Class::Graphics),
    ("libnvidia-egl-gbm.so", Class::Graphics),
    ("libnvidia-egl-wayland.so", Class::Graphics),
    ("libnvidia-ngx.so", Class::Ngx),
];

/// Programs, looked for in the directories of programs.
pub(crate) const PROGRAMS: &[(&str, Class)] = &[
    ("nvidia-smi", Class::Utility),
    ("nvidia-debugdump", Class::Utility),
    ("nvidia-persistenced", Class::Utility),
    ("nv-fabricmanager", Class::Utility),
    ("nvidia-cuda-mps-control", Class::Compute),
    ("nvidia-cuda-mps-server", Class::Compute),
];

/// Other files, sockets and directories of the driver.
pub(crate) const FILES: &[(&str, Class)] = &[
    ("/run/nvidia-persistenced/socket", Class::Utility),
    ("/run/nvidia-fabricmanager/socket", Class::Compute),
    (MPS, Class::Compute),
    ("/etc/OpenCL/vendors/nvidia.icd", Class::Compute),
    ("/usr/share/nvidia/nvoptix.bin", Class::Graphics),
    ("/usr/share/glvnd/egl_vendor.d/10_nvidia.json", Class::Graphics),
    ("/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json", Class::Graphics),
    ("/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json", Class::Graphics),
    ("/usr/share/vulkan/icd.d/nvidia_icd.json", Class::Graphics),
    ("/usr/share/vulkan/implicit_layer.d/nvidia_layers.json", Class::Graphics),
    ("/etc/vulkan/icd.d/nvidia_icd.json", Class::Graphics),
];

/// Where the multi-process service listens, unless told otherwise.
pub(crate) const MPS: &str = "/tmp/nvidia-mps";

/// Parses the value of `NVIDIA_DRIVER_CAPABILITIES`; `utility,compute` if there is none.
///
/// # Errors
///
/// Where a class is not known.
pub(crate) fn parse(value: Option<&str>) -> Result<BTreeSet<Class>, Failure> {
    let value = value.filter(|value| !value.trim().is_empty()).unwrap_or("utility,compute");
    let mut classes = BTreeSet::new();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match NAMES.iter().find(|(name, _)| *name == word) {
            Some((_, class)) => {
                classes.insert(*class);
            }
            None if word == "all" => classes.extend(NAMES.map(|(_, class)| class)),
            None => {
                let known = NAMES.map(|(name, _)| name).join(", ");
                return Err(Failure::new(format!("NVIDIA_DRIVER_CAPABILITIES={value} is wrong"))
                    .because(format!("`{word}` is not known; known are {known} and all"))
                    .hint("the image or `-e` sets the variable; leave it unset for utility and compute"));
            }
        }
    }
    Ok(classes)
}

/// Whether these classes need a library of the driver.
pub(crate) fn has_library(classes: &BTreeSet<Class>, library: &Library) -> bool {
    let class = LIBRARIES.iter().find(|(name, _)| *name == library.name).map(|(_, class)| class);
    class.is_some_and(|class| classes.contains(class))
        && (!library.is_32 || classes.contains(&Class::Compat32))
}

/// Whether these classes need a program or another file of the driver.
pub(crate) fn has_file(classes: &BTreeSet<Class>, file: &Path) -> bool {
    let named = |(name, _): &&(&str, Class)| file.file_name().is_some_and(|n| n == *name);
    let exact = |(path, _): &&(&str, Class)| file == Path::new(path);
    let found = FILES.iter().find(exact).or_else(|| PROGRAMS.iter().find(named));
    found.is_some_and(|(_, class)| classes.contains(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_parsed_with_a_default() {
        let default = BTreeSet::from([Class::Utility, Class::Compute]);
        for (value, want) in [
            (None, default.clone()),
            (Some(""), default.clone()),
            (Some("compute,utility"), default),
            (Some("video, display"), BTreeSet::from([Class::Video, Class::Display])),
            (Some("all"), NAMES.map(|(_, class)| class).into()),
        ] {
            assert_eq!(parse(value).unwrap(), want, "{value:?}");
        }
        let error = parse(Some("compute,magic")).unwrap_err().to_string();
        assert!(error.contains("`magic` is not known"), "{error}");
    }

    #[test]
    fn each_class_has_its_part_of_the_driver() {
        let library = |name: &str, is_32| Library {
            name: name.to_owned(),
            soname: format!("{name}.1"),
            path: "/x".into(),
            is_32,
        };
        let utility = BTreeSet::from([Class::Utility]);
        assert!(has_library(&utility, &library("libnvidia-ml.so", false)));
        assert!(!has_library(&utility, &library("libcuda.so", false)));
        assert!(!has_library(&utility, &library("libnvidia-ml.so", true)));
        let both = BTreeSet::from([Class::Utility, Class::Compat32]);
        assert!(has_library(&both, &library("libnvidia-ml.so", true)));
        assert!(has_file(&utility, Path::new("/opt/bin/nvidia-smi")));
        assert!(!has_file(&utility, Path::new(MPS)));
        assert!(has_file(&BTreeSet::from([Class::Compute]), Path::new(MPS)));
    }
}
