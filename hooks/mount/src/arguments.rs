//! The hook's arguments: `--mount=type=bind,..` and `--device=..`, as `sarus run` takes them.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use sarus_hook::{Access, Failure};

/// Stands in a destination for the directory of libfabric's providers.
pub(crate) const PROVIDER_PATH: &str = "<FI_PROVIDER_PATH>";

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Mount { source: PathBuf, destination: PathBuf, read_only: bool },
    Device { source: PathBuf, destination: PathBuf, access: Access },
}

/// Parses all but the program's name. `--plan` is the SDK's.
pub(crate) fn parse(given: &[OsString]) -> Result<Vec<Argument>, Failure> {
    let mut parsed = Vec::new();
    let mut words = given.iter();
    while let Some(word) = words.next() {
        let bad = |reason: &str| {
            let what = format!("cannot use the hook's argument `{}`", word.display());
            let hint = "correct `hook.args` in the hook's file (docs/hooks/mount.md)";
            Failure::new(what).because(reason).hint(hint)
        };
        let text = word.to_str().ok_or_else(|| bad("it is not UTF-8"))?;
        let (option, value) = match text.split_once('=') {
            Some((option, value)) => (option, value),
            None if text == "--plan" => continue,
            None if matches!(text, "--mount" | "--device") => {
                let next = words.next().and_then(|next| next.to_str());
                (text, next.ok_or_else(|| bad("a value must follow"))?)
            }
            None => (text, ""),
        };
        let argument = match option {
            "--mount" => mount(value),
            "--device" => device(value),
            _ => Err("expected `--mount=..` or `--device=..`".to_owned()),
        };
        parsed.push(argument.map_err(|reason| bad(&reason))?);
    }
    Ok(parsed)
}

fn mount(value: &str) -> Result<Argument, String> {
    let (mut kind, mut source, mut destination, mut read_only) = (None, None, None, false);
    for field in value.split(',') {
        let (key, value) =
            field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let place = match key {
            "type" => &mut kind,
            "source" | "src" => &mut source,
            "destination" | "dst" | "target" => &mut destination,
            "readonly" | "ro" => {
                read_only = match value {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => return Err(format!("`{key}={other}`: expected true or false")),
                };
                continue;
            }
            _ => return Err(format!("`{field}` is not known")),
        };
        let value = value.filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("`{key}` needs a value"))?;
        if place.replace(value).is_some() {
            return Err(format!("`{key}` is given twice"));
        }
    }
    match kind {
        Some("bind") => {}
        Some(other) => return Err(format!("`type={other}`: expected `bind`")),
        None => return Err("`type=bind` is missing".to_owned()),
    }
    let destination = destination.ok_or("`destination` is missing")?;
    Ok(Argument::Mount {
        source: absolute(source.ok_or("`source` is missing")?)?,
        destination: match Path::new(destination).strip_prefix(PROVIDER_PATH) {
            Ok(below) if has_no_dots(below) => destination.into(),
            _ => absolute(destination)?,
        },
        read_only,
    })
}

fn device(value: &str) -> Result<Argument, String> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, destination, access) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, other] if other.starts_with('/') => (source, other, "rwm"),
        [source, access] => (source, source, access),
        [source, destination, access] => (source, destination, access),
        _ => return Err("expected `HOST[:CONTAINER][:rwm]`".to_owned()),
    };
    let letters = |letter: char| access.matches(letter).count();
    let is_access = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
    if !is_access || "rwm".chars().any(|letter| letters(letter) > 1) {
        return Err(format!("`{access}`: expected some of `rwm`, each once"));
    }
    Ok(Argument::Device {
        source: absolute(source)?,
        destination: absolute(destination)?,
        access: access.to_owned(),
    })
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path);
    if path.is_absolute() && has_no_dots(path) {
        Ok(path.to_owned())
    } else {
        Err(format!("`{}` is not an absolute path without `..`", path.display()))
    }
}

fn has_no_dots(path: &Path) -> bool {
    path.components().all(|component| component != Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(given: &str) -> Result<Argument, String> {
        let mut all = parse(&[given.into()]).map_err(|failure| failure.to_string())?;
        assert_eq!(all.len(), 1, "{given}");
        Ok(all.remove(0))
    }

    #[test]
    fn a_mount_is_read_in_any_order_and_by_every_name() {
        for (given, read_only) in [
            ("--mount=type=bind,src=/a,dst=/b", false),
            ("--mount=type=bind,source=/a,destination=/b", false),
            ("--mount=readonly,target=/b,type=bind,src=/a", true),
            ("--mount=dst=/b,readonly=true,src=/a,type=bind", true),
            ("--mount=dst=/b,readonly=false,src=/a,type=bind", false),
        ] {
            let want = Argument::Mount { source: "/a".into(), destination: "/b".into(), read_only };
            assert_eq!(one(given).as_ref(), Ok(&want), "{given}");
        }
        let apart = parse(&["--mount".into(), "type=bind,src=/a,dst=/b".into(), "--plan".into()]);
        assert_eq!(apart.unwrap().len(), 1);
    }

    #[test]
    fn a_device_is_read_with_and_without_path_and_access() {
        for (given, source, destination, access) in [
            ("--device=/dev/a", "/dev/a", "/dev/a", "rwm"),
            ("--device=/dev/a:r", "/dev/a", "/dev/a", "r"),
            ("--device=/dev/a:/dev/b", "/dev/a", "/dev/b", "rwm"),
            ("--device=/dev/a:/dev/b:wr", "/dev/a", "/dev/b", "wr"),
        ] {
            let want = Argument::Device {
                source: source.into(),
                destination: destination.into(),
                access: access.to_owned(),
            };
            assert_eq!(one(given), Ok(want), "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (given, said) in [
            ("--mount=src=/a,dst=/b", "`type=bind` is missing"),
            ("--mount=type=tmpfs,src=/a,dst=/b", "`type=tmpfs`"),
            ("--mount=type=bind,dst=/b", "`source` is missing"),
            ("--mount=type=bind,src=/a", "`destination` is missing"),
            ("--mount=type=bind,src=a,dst=/b", "`a` is not an absolute path"),
            ("--mount=type=bind,src=/a,dst=/b/../c", "without `..`"),
            ("--mount=type=bind,src=/a,dst=<FI_PROVIDER_PATH>/../../x", "without `..`"),
            ("--mount=type=bind,src=/a,src=/c,dst=/b", "`src` is given twice"),
            ("--mount=type=bind,src=/a,dst=/b,exec", "`exec` is not known"),
            ("--mount=type=bind,src=,dst=/b", "`src` needs a value"),
            ("--mount=type=bind,src=/a,dst=/b,readonly=maybe", "expected true or false"),
            ("--mount", "a value must follow"),
            ("--device=/dev/a:x", "expected some of `rwm`"),
            ("--device=/dev/a:rr", "expected some of `rwm`"),
            ("--device=a", "`a` is not an absolute path"),
            ("--device=/a:/b:r:w", "expected `HOST"),
            ("--volume=/a:/b", "expected `--mount=..` or `--device=..`"),
        ] {
            let failure = one(given).unwrap_err();
            assert!(failure.contains(said) && failure.contains(given), "{given}: {failure}");
        }
    }
}
