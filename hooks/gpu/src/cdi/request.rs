//! Which devices are asked for.

use std::collections::BTreeMap;

use sarus_hook::Failure;

use super::name::{DeviceName, check_annotation};

/// What the names of annotations that ask for devices begin with.
const PREFIX: &str = "cdi.k8s.io/";

/// The devices of all annotations `cdi.k8s.io/NAME`, in the order of the annotations' names, then
/// those of a variable (`NVIDIA_VISIBLE_DEVICES`) if what it lists are CDI devices; each once.
///
/// # Errors
///
/// Where an annotation's name or value is not as the specification has it.
pub(crate) fn requested(
    annotations: &BTreeMap<String, String>,
    variable: Option<&str>,
) -> Result<Vec<DeviceName>, Failure> {
    let mut wanted = Vec::new();
    for (name, value) in annotations.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        let failed = |reason| {
            Failure::new(format!("the annotation `{name}={value}` asks for no CDI device"))
                .because(reason)
                .hint("its value is a list such as `nvidia.com/gpu=0,nvidia.com/gpu=1`")
        };
        check_annotation(name).map_err(failed)?;
        for text in value.split(',') {
            let device = DeviceName::parse(text).map_err(failed)?;
            if !wanted.contains(&device) {
                wanted.push(device);
            }
        }
    }
    let listed = variable.into_iter().flat_map(|list| list.split(','));
    for device in listed.filter_map(|text| DeviceName::parse(text.trim()).ok()) {
        if !wanted.contains(&device) {
            wanted.push(device);
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(annotations: &[(&str, &str)], variable: Option<&str>) -> Result<Vec<String>, String> {
        let annotations =
            annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        requested(&annotations, variable)
            .map(|wanted| wanted.iter().map(ToString::to_string).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn devices_are_asked_for_by_annotations_and_a_variable() {
        let annotations = [
            ("cdi.k8s.io/sarus", "v.com/a=1,v.com/a=0"),
            ("cdi.k8s.io/plugin_x", "v.com/b=all"),
            ("com.example", "v.com/c=0"),
        ];
        let wanted = ask(&annotations, Some("v.com/a=0,nvidia.com/gpu=0")).unwrap();
        assert_eq!(wanted, ["v.com/b=all", "v.com/a=1", "v.com/a=0", "nvidia.com/gpu=0"]);
        assert!(ask(&[], Some("0,1")).unwrap().is_empty());
        assert!(ask(&[], None).unwrap().is_empty());
    }

    #[test]
    fn an_annotation_that_is_wrong_is_refused() {
        for (name, value) in [
            ("cdi.k8s.io/x", "gpu0"),
            ("cdi.k8s.io/x", ""),
            ("cdi.k8s.io/x", "v.com/a=0,"),
            ("cdi.k8s.io/x", "v.com/a=0, v.com/a=1"),
            ("cdi.k8s.io/", "v.com/a=0"),
            ("cdi.k8s.io/-x", "v.com/a=0"),
        ] {
            let error = ask(&[(name, value)], None).unwrap_err();
            assert!(error.contains(&format!("`{name}={value}`")), "{error}");
            assert!(error.contains("hint: "), "{error}");
        }
    }
}
