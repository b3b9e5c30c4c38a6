//! The hook's own variables, which its JSON file sets.

use std::path::PathBuf;

use sarus_hook::Failure;

use crate::cdi::DIRECTORIES;

/// What a site can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Directories of CDI specifications, those of the last before others.
    pub(crate) cdi_directories: Vec<PathBuf>,
    /// Below which the node's `/dev`, `/proc`, `/sys` and driver are looked for.
    pub(crate) host_root: PathBuf,
    /// A user gets the groups that an AMD GPU's nodes belong to.
    pub(crate) add_groups: bool,
}

/// Reads the settings; `variable` gives the value of a variable of the hook.
///
/// # Errors
///
/// Where a value is not of the kind that is wanted.
pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
    let value = |name: &str| variable(name).filter(|value| !value.is_empty());
    let absolute = |name: &str, text: &str| {
        let path = PathBuf::from(text);
        if path.is_absolute() {
            return Ok(path);
        }
        Err(wrong(name, text).because("expected an absolute path"))
    };
    let name = "CDI_SPEC_DIRS";
    let listed = value(name).unwrap_or_else(|| DIRECTORIES.to_owned());
    let listed = listed.split(':').filter(|text| !text.is_empty());
    let cdi_directories = listed.map(|text| absolute(name, text)).collect::<Result<_, _>>()?;
    let name = "GPU_HOST_ROOT";
    let host_root = value(name).map_or(Ok(PathBuf::from("/")), |text| absolute(name, &text))?;
    let name = "GPU_ADD_GROUPS";
    let add_groups = match value(name).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(text) => return Err(wrong(name, text).because("expected `true` or `false`")),
    };
    Ok(Settings { cdi_directories, host_root, add_groups })
}

fn wrong(name: &str, value: &str) -> Failure {
    Failure::new(format!("the hook's setting `{name}={value}` is wrong"))
        .hint("it is in `env` of the hook's JSON file; docs/hooks/gpu.md describes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        read(|name| find(name).map(|(_, value)| (*value).to_owned()))
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn settings_have_defaults() {
        let want = Settings {
            cdi_directories: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            host_root: "/".into(),
            add_groups: false,
        };
        assert_eq!(with(&[]).unwrap(), want);
        assert_eq!(with(&[("CDI_SPEC_DIRS", ""), ("GPU_ADD_GROUPS", "false")]).unwrap(), want);
    }

    #[test]
    fn settings_are_read_and_checked() {
        let given = with(&[
            ("CDI_SPEC_DIRS", "/a::/b"),
            ("GPU_HOST_ROOT", "/run/driver"),
            ("GPU_ADD_GROUPS", "true"),
        ]);
        let want = Settings {
            cdi_directories: vec!["/a".into(), "/b".into()],
            host_root: "/run/driver".into(),
            add_groups: true,
        };
        assert_eq!(given.unwrap(), want);
        for (name, value) in
            [("CDI_SPEC_DIRS", "b"), ("GPU_HOST_ROOT", "x"), ("GPU_ADD_GROUPS", "yes")]
        {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(error.contains(&format!("`{name}={value}`")), "{error}");
        }
    }
}
