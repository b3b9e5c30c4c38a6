//! What `<FI_PROVIDER_PATH>` stands for: where the container's libfabric looks for providers.

use std::io::Read;
use std::path::{Path, PathBuf};

use sarus_hook::{Container, Failure, Plan, ld_cache};

/// Where Sarus 1.7 puts providers when nothing says where they are looked for.
const FALLBACK: &str = "/usr/lib";

/// The directory, in the container. A note of the plan says why.
pub(crate) fn find(container: &Container, plan: &mut Plan) -> Result<PathBuf, Failure> {
    if let Some(first) = container.variable("FI_PROVIDER_PATH").and_then(first_directory) {
        plan.note(format!("providers go to `{first}`: the container's `FI_PROVIDER_PATH`"));
        return Ok(first.into());
    }
    if container.root_path().is_some() {
        let library = container.survey(|root| {
            let mut cache = Vec::new();
            let file = root.open_file(Path::new("/etc/ld.so.cache")).ok()?;
            file.take(ld_cache::SIZE_MAX as u64).read_to_end(&mut cache).ok()?;
            libfabric_of(&cache)
        })?;
        if let Some(directory) = library.as_deref().and_then(Path::parent) {
            let directory = directory.join("libfabric");
            plan.note(format!("providers go to `{}`: beside libfabric", directory.display()));
            return Ok(directory);
        }
    }
    plan.note(format!("providers go to `{FALLBACK}`: no libfabric was found in the image"));
    Ok(FALLBACK.into())
}

/// The variable is a list, `@` before it is an option of libfabric's.
fn first_directory(list: &str) -> Option<&str> {
    let list = list.strip_prefix('@').unwrap_or(list);
    list.split(':').find(|path| path.starts_with('/'))
}

/// The library's path as the dynamic loader finds it. What is no cache has none.
fn libfabric_of(cache: &[u8]) -> Option<PathBuf> {
    let entries = ld_cache::entries(cache).ok()?;
    let found = entries.iter().find(|entry| entry.is_native() && entry.name == "libfabric.so.1");
    found.map(|entry| entry.path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_image_says_where_its_libfabric_looks() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir(directory.path().join("etc")).unwrap();
        let container =
            || Container::new(None, json!({"process": {}, "root": {"path": directory.path()}}));
        let find = || {
            let mut plan = Plan::default();
            find(&container(), &mut plan).unwrap()
        };
        assert_eq!(find(), Path::new("/usr/lib"));
        let libraries = ["libfab.so.1", "libfabric.so.1"]
            .map(|name| (name.to_owned(), Path::new("/usr/lib64").join(name)));
        let mut empty = b"glibc-ld.so.cache1.1".to_vec();
        empty.resize(48, 0);
        let cache = ld_cache::add(&empty, &libraries).unwrap();
        fs_err::write(directory.path().join("etc/ld.so.cache"), cache).unwrap();
        assert_eq!(find(), Path::new("/usr/lib64/libfabric"));
    }

    #[test]
    fn of_a_list_the_first_directory_counts() {
        for (given, want) in [
            ("/a", Some("/a")),
            ("@/a:/b", Some("/a")),
            (":/b", Some("/b")),
            ("", None),
            ("relative", None),
        ] {
            assert_eq!(first_directory(given), want, "{given}");
        }
    }
}
