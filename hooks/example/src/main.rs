//! Example of a hook: shows a vendor's licence file in the container. Explained in `docs/HOOKS.md`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sarus_hook::{Container, Failure, Plan, Step};

/// Where the vendor's programs look for it.
const LICENCE: &str = "/etc/vendor/licence";

fn main() -> ExitCode {
    let file = std::env::var_os("LICENCE_FILE").map(PathBuf::from);
    sarus_hook::run("licence", |container| plan(container, file.as_deref()))
}

fn plan(container: &Container, file: Option<&Path>) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    if container.annotation("com.example.licence.enabled") == Some("false") {
        plan.note("the annotation com.example.licence.enabled turns it off");
        return Ok(plan);
    }
    let Some(file) = file else {
        return Err(Failure::new("the variable `LICENCE_FILE` is missing")
            .hint("name the licence's file in `hook.env` of the hook's file"));
    };
    plan.step(Step::bind(file, LICENCE), "the vendor's programs read it there");
    if container.is_precreate() {
        plan.step(Step::variable("VENDOR_LICENCE", LICENCE), "some read this variable");
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(annotations: &serde_json::Value) -> Container {
        Container::new(None, json!({"process": {}, "annotations": annotations}))
    }

    #[test]
    fn the_licence_is_shown_where_it_is_looked_for() {
        let plan = plan(&container(&json!({})), Some(Path::new("/opt/licence"))).unwrap();
        let steps: Vec<_> = plan.steps.into_iter().map(|planned| planned.step).collect();
        assert_eq!(
            steps,
            [Step::bind("/opt/licence", LICENCE), Step::variable("VENDOR_LICENCE", LICENCE)]
        );
    }

    #[test]
    fn the_annotation_turns_it_off() {
        let off = container(&json!({"com.example.licence.enabled": "false"}));
        assert!(plan(&off, None).unwrap().steps.is_empty());
    }

    #[test]
    fn without_a_file_the_administrator_is_told() {
        let failure = plan(&container(&json!({})), None).unwrap_err();
        assert!(failure.to_string().contains("hint: name the licence's file"), "{failure}");
    }
}
