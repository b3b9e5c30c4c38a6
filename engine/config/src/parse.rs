//! From the text of `sarus.json` to a [`Config`]. Does no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::{
    Compression, Config, ContainersPolicy, ImageMount, KernelImages, Runtime, SeccompProfile,
    SiteDevice, SiteMount, Squashfs,
};
use crate::document;
use crate::environment::Environment;
use crate::error::{ConfigError, Fault};
use crate::field::Field;
use crate::keys::{is_site_only, known, retired};

/// A configuration, and what its author should know about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// The settings in force.
    pub config: Config,
    /// What was given and has no effect, in the order of the files.
    pub notes: Vec<Note>,
    /// Files that are not read: they are in another user's directory.
    pub unread: Vec<PathBuf>,
}

/// Something given that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The way to the value.
    pub key: String,
    /// Why it has no effect.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, text } = self;
        write!(f, "`{}` line {line}: `{key}` has no effect: {text}", file.display())
    }
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    /// What it sets replaces the defaults.
    Site,
    /// What it sets replaces what the site set, or adds to it; some keys it cannot set.
    User,
}

impl Config {
    /// Parses a site's `sarus.json`; `path` is named in errors and notes only.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] names the first offending key and its line.
    pub fn parse(text: &str, path: &Path) -> Result<Parsed, ConfigError> {
        let mut parsed = Parsed::default();
        overlay(&mut parsed, text, path, Author::Site)?;
        Ok(parsed)
    }
}

/// Lays the file over what is there.
pub(crate) fn overlay(
    parsed: &mut Parsed,
    text: &str,
    path: &Path,
    author: Author,
) -> Result<(), ConfigError> {
    let fault = match document::parse(text) {
        Ok(node) => Reader { config: &mut parsed.config, notes: &mut parsed.notes, path, author }
            .file(&Field::root(&node))
            .err(),
        Err(fault) => Some(fault),
    };
    match fault {
        None => Ok(()),
        Some(fault) => Err(ConfigError::Invalid { path: path.to_owned(), fault }),
    }
}

struct Reader<'a> {
    config: &'a mut Config,
    notes: &'a mut Vec<Note>,
    path: &'a Path,
    author: Author,
}

impl Reader<'_> {
    fn file(&mut self, root: &Field<'_>) -> Result<(), Fault> {
        if !root.is_object() {
            return Err(Fault::Syntax {
                line: root.line(),
                reason: "expected an object".to_owned(),
            });
        }
        for (key, field) in root.object(known(""))?.members() {
            if let Some(reason) = retired(key) {
                self.note(field, reason);
            } else if self.author == Author::User && is_site_only(key) {
                self.note(field, "only the site's configuration can set it");
            } else {
                self.set(key, field)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, field: &Field<'_>, text: &str) {
        self.notes.push(Note {
            file: self.path.to_owned(),
            line: field.line(),
            key: field.path().to_owned(),
            text: text.to_owned(),
        });
    }

    fn set(&mut self, key: &str, field: &Field<'_>) -> Result<(), Fault> {
        let config = &mut *self.config;
        match key {
            "version" => version(field)?,
            "securityChecks" => config.security_checks = field.boolean()?,
            "containersHooks" => config.containers_hooks = field.boolean()?,
            "runtime" => config.runtime = runtime(field)?,
            "hooksDir" => self.hooks_dir(field)?,
            "additionalStores" => {
                let stores = field.list_of(Field::absolute)?;
                self.config.additional_stores.extend(stores);
            }
            "blobCacheSize" => config.blob_cache_size = field.size()?,
            "removalGrace" => config.removal_grace = field.seconds(0)?,
            "squashfs" => squashfs(&mut config.squashfs, field)?,
            "imageMount" => config.image_mount = image_mount(field)?,
            "kernelImages" => config.kernel_images = kernel_images(field)?,
            "writable" => self.writable(field)?,
            "siteMounts" => self.site_mounts(field)?,
            "siteDevices" => config.site_devices = field.list_of(site_device)?,
            "environment" => self.environment(field)?,
            "userMounts" => self.user_mounts(field)?,
            "seccompProfile" => config.seccomp_profile = seccomp_profile(field)?,
            "containersPolicy" => config.containers_policy = Some(containers_policy(field)?),
            "containersRegistries" => {
                let object = field.object(known("containersRegistries"))?;
                config.containers_registries_d = Some(object.required("dPath")?.absolute()?);
            }
            _ => self.set_simple(key, field)?,
        }
        Ok(())
    }

    /// Keys that take a path or a name.
    fn set_simple(&mut self, key: &str, field: &Field<'_>) -> Result<(), Fault> {
        let config = &mut *self.config;
        let path = match key {
            "runcPath" => &mut config.runc_path,
            "crunPath" => &mut config.crun_path,
            "OCIBundleDir" => &mut config.oci_bundle_dir,
            "storeDir" => &mut config.store_dir,
            "localRepositoryBaseDir" => &mut config.local_repository_base_dir,
            "centralizedRepositoryDir" => &mut config.centralized_repository_dir,
            "verifiedImages" => &mut config.verified_images,
            "squashfusePath" => &mut config.squashfuse_path,
            "tempDir" => &mut config.temp_dir,
            "containersRegistries.dPath" => &mut config.containers_registries_d,
            _ => return self.set_name(key, field),
        };
        *path = Some(field.absolute()?);
        Ok(())
    }

    fn set_name(&mut self, key: &str, field: &Field<'_>) -> Result<(), Fault> {
        let config = &mut *self.config;
        let name = match key {
            "apparmorProfile" => &mut config.apparmor_profile,
            "selinuxLabel" => &mut config.selinux_label,
            "selinuxMountLabel" => &mut config.selinux_mount_label,
            "defaultMPIType" => &mut config.default_mpi_type,
            // `$schema`, for editors.
            _ => return field.text().map(drop),
        };
        *name = Some(field.nonempty()?);
        Ok(())
    }

    fn hooks_dir(&mut self, field: &Field<'_>) -> Result<(), Fault> {
        let directories =
            if field.is_list() {
                field.list_of(Field::absolute)?
            } else {
                vec![field.absolute().map_err(|_fault| {
                    field.wrong("an absolute path or a list of absolute paths")
                })?]
            };
        if self.author == Author::Site {
            self.config.hooks_dirs.clear();
        }
        self.config.hooks_dirs.extend(directories);
        Ok(())
    }

    fn writable(&mut self, field: &Field<'_>) -> Result<(), Fault> {
        let object = field.object(known("writable"))?;
        let writable = &mut self.config.writable;
        if let Some(size) = object.optional("size") {
            writable.size = Some(size.size()?);
        }
        if let Some(size) = object.optional("nodeSize") {
            writable.node_size = Some(size.size()?);
        }
        if let Some(directory) = object.optional("directory") {
            writable.directory = Some(directory.absolute()?);
        }
        Ok(())
    }

    fn site_mounts(&mut self, field: &Field<'_>) -> Result<(), Fault> {
        let mut mounts = Vec::new();
        for item in field.list()? {
            mounts.push(self.site_mount(&item)?);
        }
        if self.author == Author::Site {
            self.config.site_mounts.clear();
        }
        self.config.site_mounts.extend(mounts);
        Ok(())
    }

    fn site_mount(&mut self, field: &Field<'_>) -> Result<SiteMount, Fault> {
        let object = field.object(known("siteMounts[]"))?;
        if let Some(kind) = object.optional("type") {
            kind.one_of(&[("bind", ())])?;
        }
        let mut read_only = false;
        if let Some(flags) = object.optional("flags") {
            let flags = flags.object(known("siteMounts[].flags"))?;
            if let Some(flag) = flags.optional("readonly") {
                // Older files have the flag as an empty string.
                read_only = matches!(flag.text(), Ok("")) || flag.boolean()?;
            }
            if let Some(flag) = flags.optional("bind-propagation") {
                self.note(flag, "mounts never propagate out of a container");
            }
        }
        Ok(SiteMount {
            source: object.required("source")?.absolute()?,
            destination: object.required("destination")?.absolute()?,
            read_only,
        })
    }

    fn environment(&mut self, field: &Field<'_>) -> Result<(), Fault> {
        let object = field.object(known("environment"))?;
        let variables = |key| object.optional(key).map(variables).transpose();
        let unset = object.optional("unset").map(|list| list.list_of(variable_name)).transpose()?;
        let given = Environment {
            set: variables("set")?.unwrap_or_default(),
            prepend: variables("prepend")?.unwrap_or_default(),
            append: variables("append")?.unwrap_or_default(),
            unset: unset.unwrap_or_default().into_iter().collect(),
        };
        match self.author {
            Author::Site => self.config.environment = given,
            Author::User => self.config.environment.overlay(given),
        }
        Ok(())
    }

    fn user_mounts(&mut self, field: &Field<'_>) -> Result<(), Fault> {
        let object = field.object(known("userMounts"))?;
        let paths =
            |key| object.optional(key).map_or(Ok(Vec::new()), |list| list.list_of(Field::absolute));
        self.config.user_mounts.not_allowed_prefixes = paths("notAllowedPrefixesOfPath")?;
        self.config.user_mounts.not_allowed_paths = paths("notAllowedPaths")?;
        Ok(())
    }
}

fn version(field: &Field<'_>) -> Result<(), Fault> {
    match field.integer(1, 1) {
        Ok(_) => Ok(()),
        Err(_) => Err(field.wrong("1, the only version of this format")),
    }
}

fn runtime(field: &Field<'_>) -> Result<Runtime, Fault> {
    match field.text() {
        Ok("auto") => Ok(Runtime::Auto),
        Ok("runc") => Ok(Runtime::Runc),
        Ok("crun") => Ok(Runtime::Crun),
        Ok(path) if path.starts_with('/') => Ok(Runtime::Path(PathBuf::from(path))),
        _ => Err(field.wrong("\"auto\", \"runc\", \"crun\" or an absolute path")),
    }
}

fn seccomp_profile(field: &Field<'_>) -> Result<SeccompProfile, Fault> {
    match field.text() {
        Ok("default") => Ok(SeccompProfile::Default),
        Ok("unconfined") => Ok(SeccompProfile::Unconfined),
        Ok(path) if path.starts_with('/') => Ok(SeccompProfile::Path(PathBuf::from(path))),
        _ => Err(field.wrong("\"default\", \"unconfined\" or an absolute path")),
    }
}

fn image_mount(field: &Field<'_>) -> Result<ImageMount, Fault> {
    field.one_of(&[
        ("auto", ImageMount::Auto),
        ("kernel", ImageMount::Kernel),
        ("fuse", ImageMount::Fuse),
        ("unpack", ImageMount::Unpack),
    ])
}

fn kernel_images(field: &Field<'_>) -> Result<KernelImages, Fault> {
    field.one_of(&[
        ("any", KernelImages::Any),
        ("store", KernelImages::Store),
        ("verified", KernelImages::Verified),
        ("none", KernelImages::None),
    ])
}

/// A compressor brings its default level, whatever level was set for another.
fn squashfs(squashfs: &mut Squashfs, field: &Field<'_>) -> Result<(), Fault> {
    let object = field.object(known("squashfs"))?;
    if let Some(name) = object.optional("compression") {
        squashfs.compression = name.one_of(&[
            ("zstd", Compression::Zstd { level: 1 }),
            ("gzip", Compression::Gzip { level: 6 }),
            ("lz4", Compression::Lz4),
            ("none", Compression::None),
        ])?;
    }
    if let Some(given) = object.optional("level") {
        let (level, most) = match &mut squashfs.compression {
            Compression::Zstd { level } => (level, 22),
            Compression::Gzip { level } => (level, 9),
            Compression::Lz4 | Compression::None => {
                return Err(given.wrong("no level: this compression has none"));
            }
        };
        *level = u8::try_from(given.integer(1, most)?).unwrap_or(u8::MAX);
    }
    if let Some(given) = object.optional("blockSize") {
        let bytes = given.size().ok().and_then(|bytes| u32::try_from(bytes).ok());
        squashfs.block_size = bytes
            .filter(|bytes| bytes.is_power_of_two() && (4 << 10..=1 << 20).contains(bytes))
            .ok_or_else(|| given.wrong("a power of two from \"4KiB\" to \"1MiB\""))?;
    }
    Ok(())
}

fn site_device(field: &Field<'_>) -> Result<SiteDevice, Fault> {
    let object = field.object(known("siteDevices[]"))?;
    let source = object.required("source")?.absolute()?;
    let destination = match object.optional("destination") {
        Some(destination) => destination.absolute()?,
        None => source.clone(),
    };
    let access = match object.optional("access") {
        Some(access) => device_access(access)?,
        None => "rwm".to_owned(),
    };
    Ok(SiteDevice { source, destination, access })
}

fn device_access(field: &Field<'_>) -> Result<String, Fault> {
    let text = field.text()?;
    let once = |right| text.matches(right).count() <= 1;
    let known = !text.is_empty() && text.chars().all(|right| "rwm".contains(right));
    if !known || !"rwm".chars().all(once) {
        return Err(field.wrong("a selection of `r`, `w` and `m`, each at most once"));
    }
    Ok(text.to_owned())
}

fn containers_policy(field: &Field<'_>) -> Result<ContainersPolicy, Fault> {
    let object = field.object(known("containersPolicy"))?;
    let enforce = object.optional("enforce").map_or(Ok(false), Field::boolean)?;
    Ok(ContainersPolicy { path: object.required("path")?.absolute()?, enforce })
}

fn variables(field: &Field<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let mut variables = BTreeMap::new();
    for (name, value) in field.map()? {
        if !is_variable_name(name) {
            return Err(value.wrong("a key that is a variable's name: not empty, without `=`"));
        }
        variables.insert(name.to_owned(), value.text()?.to_owned());
    }
    Ok(variables)
}

fn variable_name(field: &Field<'_>) -> Result<String, Fault> {
    let name = field.text()?;
    if !is_variable_name(name) {
        return Err(field.wrong("a variable's name: not empty, without `=`"));
    }
    Ok(name.to_owned())
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}
