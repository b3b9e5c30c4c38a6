//! Targets around whole images: archives of every kind, and the policy that lets them in.

use std::cell::OnceCell;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use sarus_image::policy::{Evidence, Policy, Subject, Transport};
use sarus_image::squash::Settings;
use sarus_image::{Format, LoadRequest, Location, PullSettings, Silent, Store, load};
use sarus_oci::{Platform, Reference};

use super::squash::read;

thread_local! {
    /// Where archives are loaded from and to, made once.
    static GROUND: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
}

/// A file that is loaded: as what its content says, or as what the first byte says. What is
/// stored is whole, and nothing is left of what is refused.
pub fn archive(input: &[u8]) {
    let Some((&which, content)) = input.split_first() else { return };
    let format = match which % 8 {
        1 => Some(Format::DockerArchive),
        2 => Some(Format::OciArchive),
        3 => Some(Format::RootTar),
        4 => Some(Format::Squashfs),
        5 => Some(Format::Sif),
        _ => None,
    };
    GROUND.with(|ground| {
        let ground = ground.get_or_init(super::temporary_directory);
        let (path, spool) = (ground.path().join("archive"), ground.path().join("spool"));
        DirBuilder::new().recursive(true).create(&spool).expect("a directory");
        let mut file = File::create(&path).expect("a file");
        file.write_all(content).expect("room");
        drop(file);
        let request = LoadRequest {
            location: Location::of_argument(&path),
            name: None,
            format,
            platform: Platform::host(),
            spool: spool.clone(),
        };
        let settings = PullSettings {
            squash: Settings { threads: NonZeroUsize::MIN, ..Settings::default() },
            time: None,
            parallel: NonZeroUsize::MIN,
            blob_cache_bytes: 0,
            removal_grace: Duration::ZERO,
            policy: Policy::accept_anything(),
        };
        let store = Store::open(ground.path().join("store"));
        match load(&request, None, &store, &settings, &Silent) {
            Ok(loaded) => {
                for loaded in loaded {
                    assert!(!loaded.names.is_empty());
                    let stored = store.image(&loaded.image.digest).expect("a store that is read");
                    let stored = stored.expect("what was loaded is stored");
                    let file = File::open(&stored.squashfs).expect("a squashfs file");
                    read(&file).expect("what was written is read");
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let listing = store.list().expect("a store that is read");
        assert!(listing.damaged.is_empty(), "{:?}", listing.damaged);
        for digest in listing.images.keys() {
            store.remove_image(digest, Duration::ZERO).expect("an image that is removed");
        }
        let left = |directory: &Path| std::fs::read_dir(directory).into_iter().flatten().count();
        assert_eq!(left(&spool) + left(&ground.path().join("store/tmp")), 0, "something is left");
    });
}

/// A `policy.json`; one that is accepted is also asked about images, which it cannot but judge.
pub fn policy(input: &[u8]) {
    let policy = match Policy::parse(input, Path::new("/etc/containers/policy.json")) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let reference = Reference::parse("registry.example.com/team/app:1").expect("a reference");
    let path = Path::new("/images/app.tar");
    let subjects = [
        Subject::Registry(&reference),
        Subject::ContainersStorage { storage: None, reference: &reference },
        Subject::File(Transport::Oci, Some(path)),
        Subject::File(Transport::DockerArchive, None),
    ];
    for subject in subjects {
        if let Err(error) = policy.rule(&subject).admit(&subject, &Evidence::default()) {
            assert!(!error.to_string().is_empty());
        }
    }
}
