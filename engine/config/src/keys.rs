//! The keys that `sarus.json` may have. A table: longer than it is complicated.

/// Each object of the file, by the way to it (`[]` stands for any item of a list), and its keys.
pub type KeyTable = &'static [(&'static str, &'static [&'static str])];

/// What the parser knows; `etc/sarus.schema.json` has the same.
pub const KEYS: KeyTable = &[
    (
        "",
        &[
            "$schema",
            "version",
            "securityChecks",
            "runtime",
            "runcPath",
            "crunPath",
            "OCIBundleDir",
            "hooksDir",
            "containersHooks",
            "storeDir",
            "localRepositoryBaseDir",
            "centralizedRepositoryDir",
            "additionalStores",
            "blobCacheSize",
            "removalGrace",
            "squashfs",
            "imageMount",
            "kernelImages",
            "verifiedImages",
            "squashfusePath",
            "tempDir",
            "writable",
            "siteMounts",
            "siteDevices",
            "environment",
            "userMounts",
            "seccompProfile",
            "apparmorProfile",
            "selinuxLabel",
            "selinuxMountLabel",
            "containersPolicy",
            "containersRegistries",
            "containersRegistries.dPath",
            "defaultMPIType",
            "prefixDir",
            "rootfsFolder",
            "skopeoPath",
            "umociPath",
            "mksquashfsPath",
            "mksquashfsOptions",
            "initPath",
            "ramFilesystemType",
            "repositoryMetadataLockTimings",
            "enablePMIxv3Support",
        ],
    ),
    ("squashfs", &["compression", "level", "blockSize"]),
    ("writable", &["size", "nodeSize", "directory"]),
    ("siteMounts[]", &["type", "source", "destination", "flags"]),
    ("siteMounts[].flags", &["readonly", "bind-propagation"]),
    ("siteDevices[]", &["source", "destination", "access"]),
    ("environment", &["set", "prepend", "append", "unset"]),
    ("userMounts", &["notAllowedPrefixesOfPath", "notAllowedPaths"]),
    ("containersPolicy", &["path", "enforce"]),
    ("containersRegistries", &["dPath"]),
];

/// Keys of Sarus 1.7 that have no effect any more, and why. Their values are not looked at.
const RETIRED: &[(&str, &str)] = &[
    ("prefixDir", "Sarus finds its programs beside itself"),
    ("rootfsFolder", "the bundle's layout is not a setting any more"),
    ("skopeoPath", "images are pulled without Skopeo"),
    ("umociPath", "images are converted without umoci"),
    ("mksquashfsPath", "images are written without mksquashfs"),
    ("mksquashfsOptions", "see `squashfs.compression`, `squashfs.level` and `squashfs.blockSize`"),
    ("initPath", "the init of `--init` is built in"),
    ("ramFilesystemType", "the writable layer in memory is always a tmpfs; see `writable`"),
    ("repositoryMetadataLockTimings", "readers of the store take no lock"),
    ("enablePMIxv3Support", "PMIx needs no setting"),
];

/// What a user's own file cannot set.
const SITE_ONLY: &[&str] = &[
    "securityChecks",
    "OCIBundleDir",
    "containersHooks",
    "centralizedRepositoryDir",
    "siteDevices",
    "kernelImages",
    "verifiedImages",
    "userMounts",
    "seccompProfile",
    "apparmorProfile",
    "selinuxLabel",
    "selinuxMountLabel",
    "containersPolicy",
    "containersRegistries",
    "containersRegistries.dPath",
];

/// The keys of the object at `path`.
pub(crate) fn known(path: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(object, _)| *object == path).map_or(&[], |(_, keys)| *keys)
}

/// Why `key` has no effect any more.
pub(crate) fn retired(key: &str) -> Option<&'static str> {
    RETIRED.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason)
}

pub(crate) fn is_site_only(key: &str) -> bool {
    SITE_ONLY.contains(&key)
}

/// The key that `given` most likely stands for: at most a third of it differs.
pub(crate) fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let (key, distance) =
        known.iter().map(|key| (*key, distance(given, key))).min_by_key(|(_, d)| *d)?;
    (distance <= given.len().div_ceil(3)).then_some(key)
}

/// How many letters to insert, remove or replace to come from one to the other, in any case.
fn distance(left: &str, right: &str) -> usize {
    let left = left.to_ascii_lowercase();
    let right = right.to_ascii_lowercase();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
