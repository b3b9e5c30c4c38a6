//! Looks at the host: its GPUs, and where the driver's files are.

use std::path::{Path, PathBuf};

use sarus_hook::{Failure, ld_cache};
use sarus_nvml::{Node, NvmlError};

use super::capability::{FILES, LIBRARIES, MPS, PROGRAMS};
use super::{Capability, HostGpus, Library};
use crate::cdi::driver_version;
use crate::host::{Found, Host, RealHost, below};

/// The management library, by the name that its users ask for.
const NVML: &str = "libnvidia-ml.so.1";

/// What an entry of the loader's cache says of a library for i386.
const FLAGS_I386: i32 = 0x0003;

/// Where libraries may be that the loader's cache does not list.
const LIBRARY_DIRECTORIES: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib64/nvidia",
    "/usr/lib",
    "/lib64",
    "/usr/local/nvidia/lib64",
];

/// Where programs may be.
const PROGRAM_DIRECTORIES: [&str; 6] =
    ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/nvidia/bin"];

/// Longest chain of symbolic links; the kernel's own limit.
const LINKS_MAX: usize = 40;

/// Looks below `root`. `None`: no driver is loaded.
///
/// # Errors
///
/// Where the driver is loaded, but its library is missing or does not answer.
pub(crate) fn look(root: &Path) -> Result<Option<HostGpus>, Failure> {
    let nodes = nodes(root);
    let version = below(root, Path::new("/proc/driver/nvidia/version"));
    if nodes.is_empty() && RealHost.look(&version).is_none() {
        return Ok(None);
    }
    let libraries = Libraries::of(root);
    let Some(library) = libraries.find(NVML) else {
        return Err(Failure::new("cannot ask the NVIDIA driver for its GPUs")
            .because(format!("the driver is loaded, but there is no `{NVML}` on this node"))
            .hint("install the driver's libraries and run ldconfig; for a driver elsewhere set GPU_HOST_ROOT in the hook's file"));
    };
    let Some(node) = ask(&below(root, &library))? else { return Ok(None) };
    let files =
        FILES.iter().map(|(path, _)| PathBuf::from(path)).filter(|path| is_ours(root, path));
    let programs = PROGRAMS.iter().filter_map(|(name, _)| {
        let mut paths = PROGRAM_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        paths.find(|path| {
            matches!(RealHost.look(&below(root, path)), Some(Found::File { executable: true }))
        })
    });
    Ok(Some(HostGpus {
        libraries: libraries.all(&node.driver_version),
        files: programs.chain(files).collect(),
        nodes,
        capabilities: capabilities(root, &node),
        root: root.to_owned(),
        node,
    }))
}

/// What anyone may put below `/tmp` counts only if it is what it should be.
fn is_ours(root: &Path, path: &Path) -> bool {
    let found = std::fs::symlink_metadata(below(root, path));
    found.is_ok_and(|found| path != Path::new(MPS) || found.is_dir())
}

fn ask(library: &Path) -> Result<Option<Node>, Failure> {
    let failed = || Failure::new("cannot ask the NVIDIA driver for its GPUs");
    if let Some(reason) = RealHost.distrust(library) {
        return Err(failed()
            .because(reason)
            .hint("only what root alone can change is loaded as root"));
    }
    let error = match sarus_nvml::ask(library) {
        Ok(node) => return Ok(Some(node)),
        Err(error) if error.is_without_driver() => return Ok(None),
        Err(error) => error,
    };
    let mut failure = failed().because(format!("`{}`: {error}", library.display()));
    if let NvmlError::Load { source, .. } | NvmlError::Symbol { source, .. } = &error {
        failure = failure.because(source);
    }
    Err(failure.hint(if error.is_version_mismatch() {
        "the driver was updated: load its modules anew, or reboot the node"
    } else {
        "does `nvidia-smi` work on this node?"
    }))
}

/// Names and paths of the host's libraries.
struct Libraries<'r> {
    root: &'r Path,
    /// Of the loader's cache: name, path, and whether it is for 32 bits.
    cached: Vec<(String, PathBuf, bool)>,
}

impl<'r> Libraries<'r> {
    fn of(root: &'r Path) -> Self {
        let cache = std::fs::read(below(root, Path::new("/etc/ld.so.cache"))).unwrap_or_default();
        let entries = ld_cache::entries(&cache).unwrap_or_else(|reason| {
            log::info!("the host's `/etc/ld.so.cache` tells nothing: {reason}");
            Vec::new()
        });
        let kind = |entry: &ld_cache::Entry<'_>| match entry.is_native() {
            true => Some(false),
            false => (cfg!(target_arch = "x86_64") && entry.flags == FLAGS_I386).then_some(true),
        };
        let cached = entries.iter().filter_map(|entry| {
            Some((entry.name.to_str()?.to_owned(), entry.path.to_owned(), kind(entry)?))
        });
        Self { root, cached: cached.collect() }
    }

    /// Where a library is, by its full name.
    fn find(&self, soname: &str) -> Option<PathBuf> {
        let is_it = |(name, _, is_32): &&(String, PathBuf, bool)| name == soname && !is_32;
        let cached = self.cached.iter().find(is_it).map(|(_, path, _)| path.clone());
        let mut guessed = LIBRARY_DIRECTORIES.iter().map(|place| Path::new(place).join(soname));
        cached.or_else(|| guessed.find(|path| RealHost.look(&below(self.root, path)).is_some()))
    }

    /// All libraries of the driver of this version.
    fn all(&self, version: &str) -> Vec<Library> {
        let mut found = Vec::new();
        for (name, _) in LIBRARIES {
            let is_it = |(soname, ..): &&(String, PathBuf, bool)| is_version_of(soname, name);
            let cached = self.cached.iter().filter(is_it).cloned();
            let mut candidates: Vec<(String, PathBuf, bool)> = cached.collect();
            if candidates.is_empty() {
                candidates.extend(self.guess(name));
            }
            for (soname, path, is_32) in candidates {
                let path = self.real(&path);
                let fits = driver_version(&path).is_none_or(|of| of == version);
                let is_known =
                    |library: &Library| library.soname == soname && library.is_32 == is_32;
                if fits
                    && !found.iter().any(is_known)
                    && RealHost.look(&below(self.root, &path)).is_some()
                {
                    found.push(Library { name: (*name).to_owned(), soname, path, is_32 });
                }
            }
        }
        found
    }

    fn guess(&self, name: &str) -> Option<(String, PathBuf, bool)> {
        LIBRARY_DIRECTORIES.iter().map(Path::new).find_map(|directory| {
            let names = RealHost.names(&below(self.root, directory));
            let soname = names.into_iter().find(|found| is_version_of(found, name))?;
            let path = directory.join(&soname);
            Some((soname, path, false))
        })
    }

    /// The file behind the symbolic links, which stay below the root.
    fn real(&self, path: &Path) -> PathBuf {
        let mut at = path.to_owned();
        for _ in 0..LINKS_MAX {
            let Ok(target) = std::fs::read_link(below(self.root, &at)) else { break };
            at = at.parent().unwrap_or(Path::new("/")).join(target);
        }
        at
    }
}

/// Whether a name is `libcuda.so` with a version of its own. Some libraries of the driver have the
/// driver's version in the name by which they are asked for.
fn is_version_of(soname: &str, name: &str) -> bool {
    let version = soname.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    version.is_some_and(|version| {
        version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !version.is_empty()
    })
}

/// The device nodes of the driver.
fn nodes(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["/dev", "/dev/nvidia-caps", "/dev/nvidia-caps-imex-channels"] {
        let directory = Path::new(directory);
        let names = RealHost.names(&below(root, directory));
        let paths = names.iter().map(|name| directory.join(name));
        let is_node = |path: &PathBuf| {
            matches!(RealHost.look(&below(root, path)), Some(Found::Device { .. }))
        };
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            ["nvidia", "gdrdrv", "channel"].iter().any(|begin| name.starts_with(begin))
        };
        found.extend(paths.filter(is_ours).filter(is_node));
    }
    found
}

/// What the kernel says of the parts of partitioned GPUs.
fn capabilities(root: &Path, node: &Node) -> Vec<Capability> {
    let read = |gpu: u32, gpu_instance: u32, compute_instance: Option<u32>| {
        let mut path = format!("/proc/driver/nvidia/capabilities/gpu{gpu}/mig/gi{gpu_instance}");
        if let Some(instance) = compute_instance {
            path.push_str(&format!("/ci{instance}"));
        }
        let text = fs_err::read_to_string(below(root, &Path::new(&path).join("access"))).ok()?;
        let minor = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor:"))?;
        let minor = minor.trim().parse().ok()?;
        Some(Capability { gpu, gpu_instance, compute_instance, minor })
    };
    let parts = node.gpus.iter().flat_map(|gpu| gpu.mig.iter().map(move |part| (gpu.minor, part)));
    let both = parts.flat_map(|(gpu, part)| {
        let instance = part.gpu_instance;
        [read(gpu, instance, None), read(gpu, instance, Some(part.compute_instance))]
    });
    both.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sarus_nvml::{Gpu, Mig};

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = below(folder.path(), Path::new(path));
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn without_a_driver_there_is_nothing_to_ask() {
        assert!(look(host(&[]).path()).unwrap().is_none());
    }

    #[test]
    fn a_driver_without_its_library_is_an_error() {
        let folder = host(&[("/proc/driver/nvidia/version", "")]);
        let error = look(folder.path()).unwrap_err().to_string();
        assert!(error.contains("there is no `libnvidia-ml.so.1`"), "{error}");
    }

    #[test]
    fn libraries_are_found_without_a_cache_and_only_of_the_drivers_version() {
        let directory = "/usr/lib64";
        let folder = host(&[
            ("/usr/lib64/libcuda.so.535.104.05", ""),
            ("/usr/lib64/libnvcuvid.so.470.1", ""),
            ("/usr/lib64/libnvidia-ml.so.1", ""),
            ("/usr/lib64/libcuda.so", ""),
        ]);
        let link = |target: &str, name: &str| {
            let path = below(folder.path(), Path::new(directory)).join(name);
            std::os::unix::fs::symlink(target, path).unwrap();
        };
        link("libcuda.so.535.104.05", "libcuda.so.1");
        link("/usr/lib64/libnvcuvid.so.470.1", "libnvcuvid.so.1");
        let all = Libraries::of(folder.path()).all("535.104.05");
        let shown: Vec<_> =
            all.iter().map(|found| (found.soname.as_str(), found.path.to_str().unwrap())).collect();
        let want = [
            ("libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1"),
            ("libcuda.so.1", "/usr/lib64/libcuda.so.535.104.05"),
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn the_rights_to_parts_of_gpus_are_read() {
        let at = "/proc/driver/nvidia/capabilities/gpu3/mig/gi7";
        let text = |minor: u32| format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\n");
        let folder =
            host(&[(&format!("{at}/access"), &text(66)), (&format!("{at}/ci0/access"), &text(67))]);
        let part = Mig { gpu_instance: 7, ..Mig::default() };
        let gpu = Gpu { minor: 3, mig: vec![part], ..Gpu::default() };
        let node = Node { gpus: vec![gpu], ..Node::default() };
        let found = capabilities(folder.path(), &node);
        let capability = |compute_instance, minor| Capability {
            gpu: 3,
            gpu_instance: 7,
            compute_instance,
            minor,
        };
        assert_eq!(found, [capability(None, 66), capability(Some(0), 67)]);
    }
}
