//! What `sarus.json` can set, with the defaults.
//!
//! Types only: how they are read is in `parse`, which file wins in `load`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Environment;

/// The settings in force. [`Config::default`] is what holds without any file.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `runtime`: the OCI runtime that starts containers.
    pub runtime: Runtime,
    /// `runcPath`: absolute; without it looked up in the usual system directories.
    pub runc_path: Option<PathBuf>,
    /// `crunPath`: absolute; without it looked up in the usual system directories.
    pub crun_path: Option<PathBuf>,
    /// `OCIBundleDir`: the directory that each run covers in its own mount namespace to put its
    /// bundle there; without it chosen by the shim.
    pub oci_bundle_dir: Option<PathBuf>,
    /// `hooksDir`: Sarus's own directories of hook files.
    pub hooks_dirs: Vec<PathBuf>,
    /// `containersHooks`: whether the hook directories shared with Podman are read too.
    pub containers_hooks: bool,
    /// `storeDir`: the caller's own store, absolute.
    pub store_dir: Option<PathBuf>,
    /// `localRepositoryBaseDir`: the directory that holds each user's store as `<user>/.sarus`.
    pub local_repository_base_dir: Option<PathBuf>,
    /// `centralizedRepositoryDir`: the site's store.
    pub centralized_repository_dir: Option<PathBuf>,
    /// `additionalStores`: stores that are only read, after the caller's own and the site's.
    pub additional_stores: Vec<PathBuf>,
    /// `squashfs`: how images are written.
    pub squashfs: Squashfs,
    /// `imageMount`: how images are mounted.
    pub image_mount: ImageMount,
    /// `kernelImages`: which images the kernel may mount with the privilege of a setuid shim.
    pub kernel_images: KernelImages,
    /// `verifiedImages`: a file with the fs-verity digests of images that were checked, absolute.
    pub verified_images: Option<PathBuf>,
    /// `squashfusePath`: absolute; without it looked up in `PATH`.
    pub squashfuse_path: Option<PathBuf>,
    /// `tempDir`: node-local directory for what must be on disk; without it `TMPDIR`, else `/tmp`.
    pub temp_dir: Option<PathBuf>,
    /// `writable`: the container's writable layer.
    pub writable: Writable,
    /// `siteMounts`: mounts in every container, in this order.
    pub site_mounts: Vec<SiteMount>,
    /// `siteDevices`: devices in every container, in this order.
    pub site_devices: Vec<SiteDevice>,
    /// `environment`: changes to every container's variables.
    pub environment: Environment,
    /// `userMounts`: where users may not mount.
    pub user_mounts: UserMounts,
    /// `seccompProfile`: which system calls the command may make.
    pub seccomp_profile: SeccompProfile,
    /// `apparmorProfile`: the name of a profile that is loaded.
    pub apparmor_profile: Option<String>,
    /// `selinuxLabel`: the process label.
    pub selinux_label: Option<String>,
    /// `selinuxMountLabel`: the label of the mounts.
    pub selinux_mount_label: Option<String>,
    /// `containersPolicy`: the site's signature policy.
    pub containers_policy: Option<ContainersPolicy>,
    /// `containersRegistries.dPath`: the site's `registries.d` directory (where signatures lie).
    pub containers_registries_d: Option<PathBuf>,
    /// `defaultMPIType`: the MPI hook's type when the user names none.
    pub default_mpi_type: Option<String>,
    /// `securityChecks`: whether the privileged shim checks who may change what it trusts.
    pub security_checks: bool,
    /// `blobCacheSize`: the largest total size of kept downloads, in bytes; 0 keeps none.
    pub blob_cache_size: u64,
    /// `removalGrace`: how long a removed image's file stays for those who run it.
    pub removal_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: Runtime::Auto,
            runc_path: None,
            crun_path: None,
            oci_bundle_dir: None,
            hooks_dirs: vec![PathBuf::from("/etc/sarus/hooks.d")],
            containers_hooks: true,
            store_dir: None,
            local_repository_base_dir: None,
            centralized_repository_dir: None,
            additional_stores: Vec::new(),
            squashfs: Squashfs::default(),
            image_mount: ImageMount::Auto,
            kernel_images: KernelImages::Store,
            verified_images: None,
            squashfuse_path: None,
            temp_dir: None,
            writable: Writable::default(),
            site_mounts: Vec::new(),
            site_devices: Vec::new(),
            environment: Environment::default(),
            user_mounts: UserMounts::default(),
            seccomp_profile: SeccompProfile::Default,
            apparmor_profile: None,
            selinux_label: None,
            selinux_mount_label: None,
            containers_policy: None,
            containers_registries_d: None,
            default_mpi_type: None,
            security_checks: true,
            blob_cache_size: 10 << 30,
            removal_grace: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl Config {
    /// The store of `user`, whose `$XDG_DATA_HOME` (else `~/.local/share`) is `data_home`:
    /// `storeDir`, else `<localRepositoryBaseDir>/<user>/.sarus`, else `<data_home>/sarus`.
    pub fn user_store(&self, user: &str, data_home: &Path) -> PathBuf {
        match (&self.store_dir, &self.local_repository_base_dir) {
            (Some(store), _) => store.clone(),
            (None, Some(base)) => base.join(user).join(".sarus"),
            (None, None) => data_home.join("sarus"),
        }
    }

    /// What the configuration names and the privileged shim trusts, besides hooks: each is to be
    /// given to [`crate::check_trusted`].
    pub fn paths_to_check(&self) -> Vec<PathBuf> {
        let runtime = match &self.runtime {
            Runtime::Path(path) => Some(path),
            Runtime::Auto | Runtime::Runc | Runtime::Crun => None,
        };
        let seccomp_profile = match &self.seccomp_profile {
            SeccompProfile::Path(path) => Some(path),
            SeccompProfile::Default | SeccompProfile::Unconfined => None,
        };
        [
            runtime,
            self.runc_path.as_ref(),
            self.crun_path.as_ref(),
            seccomp_profile,
            self.oci_bundle_dir.as_ref(),
            self.verified_images.as_ref(),
        ]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
    }
}

/// The OCI runtime that starts containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// The first of crun and runc that the node has and that works.
    Auto,
    /// runc, wherever it is.
    Runc,
    /// crun, wherever it is.
    Crun,
    /// The program at this absolute path, with runc's command line.
    Path(PathBuf),
}

/// How images are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Squashfs {
    /// The compressor and, where it has levels, the level.
    pub compression: Compression,
    /// Bytes, a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
}

impl Default for Squashfs {
    fn default() -> Self {
        Self { compression: Compression::Zstd { level: 1 }, block_size: 128 << 10 }
    }
}

/// A squashfs compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Level 1 to 22.
    Zstd {
        /// 1 is the default.
        level: u8,
    },
    /// Level 1 to 9.
    Gzip {
        /// 6 is the default.
        level: u8,
    },
    /// Has no levels.
    Lz4,
    /// Blocks are stored as they are.
    None,
}

/// How images are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageMount {
    /// The first of the others that works on the node for the caller.
    Auto,
    /// The kernel's squashfs on a loop device.
    Kernel,
    /// A FUSE server.
    Fuse,
    /// Unpacked to a directory below `tempDir`.
    Unpack,
}

/// Which images the kernel's squashfs may read on behalf of a user: a damaged or hostile one could
/// find a fault in the kernel. Root decides for itself, but never about a file that others can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelImages {
    /// Every file that the user can read.
    Any,
    /// Those of the site's store, where nobody but root can write.
    Store,
    /// Those of the site's store, and files under fs-verity whose digest is in `verifiedImages`.
    Verified,
    /// None: every run of a user is rootless.
    None,
}

/// The container's writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Writable {
    /// Its limit in bytes while it is in memory; without one the kernel's default, half the memory.
    pub size: Option<u64>,
    /// The limit in bytes of all of a step's writable layers on one node: each of its tasks gets an
    /// equal part, if that is less than `size`.
    pub node_size: Option<u64>,
    /// A directory on disk that holds it instead of memory; without one memory.
    pub directory: Option<PathBuf>,
}

/// A mount in every container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteMount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// The mount refuses writes.
    pub read_only: bool,
}

/// A device in every container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteDevice {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container; the source's by default.
    pub destination: PathBuf,
    /// A selection of `r`, `w` and `m`, each at most once; `rwm` by default.
    pub access: String,
}

/// Which system calls the command may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompProfile {
    /// What the built-in profile lets it.
    Default,
    /// All that the kernel lets it.
    Unconfined,
    /// What the profile at this absolute path lets it, in the containers ecosystem's format.
    Path(PathBuf),
}

/// Where users may not mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserMounts {
    /// Nothing at or below these paths of the container.
    pub not_allowed_prefixes: Vec<PathBuf>,
    /// Nothing at exactly these paths of the container.
    pub not_allowed_paths: Vec<PathBuf>,
}

/// The site's signature policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersPolicy {
    /// A `policy.json`, absolute.
    pub path: PathBuf,
    /// Whether it holds also for users who have a policy of their own.
    pub enforce: bool,
}
