//! The hook `fabric`: providers of libfabric, devices and variables of the site's fabric.
//!
//! What it does, its variables and the format of its file: `docs/hooks/fabric.md`.

mod config;
mod decide;
#[cfg(test)]
mod decide_tests;
mod image;
mod node;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sarus_hook::{Container, Failure, Plan, Step};

use config::{Config, Mount, Replace};
use decide::{Decision, Facts, Way};
use node::{Node, Nodes};

/// The variable of the hook that names the site's file.
const FABRIC_CONFIG: &str = "FABRIC_CONFIG";

/// Where libfabric looks for providers that are files of their own.
const FI_PROVIDER_PATH: &str = "FI_PROVIDER_PATH";

fn main() -> ExitCode {
    let file = std::env::var_os(FABRIC_CONFIG).map(PathBuf::from);
    sarus_hook::run("fabric", |container| {
        let Some(file) = &file else {
            let hint = "name the file in `hook.env` of the hook's file (docs/hooks/fabric.md)";
            return Err(
                Failure::new(format!("the variable `{FABRIC_CONFIG}` is missing")).hint(hint)
            );
        };
        plan(container, &config::load(file)?)
    })
}

fn plan(container: &Container, config: &Config) -> Result<Plan, Failure> {
    let site = config.libfabric.as_ref().filter(|libfabric| libfabric.library.is_some());
    let replace = site.map(|libfabric| libfabric.replace).unwrap_or_default();
    let is_built_in = config.providers.iter().any(|provider| provider.library.is_none());
    // Most images need no other libfabric, and reading all that one needs takes its time.
    let is_first = replace == Replace::Always || is_built_in;
    let (mut node, mut decision) = decide(container, config, is_first)?;
    let is_second = !is_first && site.is_some() && replace == Replace::Auto;
    if is_second && !decision.refused.is_empty() {
        (node, decision) = decide(container, config, true)?;
    }
    decision.refused.extend(node.unusable.iter().cloned());
    let mut plan = Plan::default();
    plan.notes.extend(node.absent.iter().cloned());
    explain(&mut plan, &node, &decision, config.required)?;
    steps(&mut plan, container, config, (&node, &decision));
    Ok(plan)
}

/// Looks at the node and the image; at the site's libfabric only if `with_libfabric`.
fn decide<'c>(
    container: &Container,
    config: &'c Config,
    with_libfabric: bool,
) -> Result<(Node<'c>, Decision), Failure> {
    let node = node::look(config, with_libfabric, |name| container.annotation(name))?;
    let libfabric = config.libfabric.as_ref();
    let directories = libfabric.map(|libfabric| libfabric.image_directories.as_slice());
    let directories = directories.unwrap_or_default();
    let library_path = container.variable("LD_LIBRARY_PATH").unwrap_or_default();
    let image = container.survey(|root| image::look(root, &node, library_path, directories))?;
    let own = container.variable(FI_PROVIDER_PATH).and_then(first_directory);
    let decision = decide::decide(&Facts {
        node: &node,
        image: &image,
        replace: libfabric.map(|libfabric| libfabric.replace).unwrap_or_default(),
        provider_path: own.map(Path::new),
        with_host_libc: container.annotation("com.hooks.glibc.enabled") == Some("true"),
    });
    Ok((node, decision))
}

/// The variable is a list, `@` before it is an option of libfabric's.
fn first_directory(list: &str) -> Option<&str> {
    let list = list.strip_prefix('@').unwrap_or(list);
    list.split(':').find(|path| path.starts_with('/'))
}

/// Says which way was taken and what could not be used, or refuses.
fn explain(
    plan: &mut Plan,
    node: &Node<'_>,
    decision: &Decision,
    required: bool,
) -> Result<(), Failure> {
    let names: Vec<&str> = decision
        .providers
        .iter()
        .map(|index| node.providers[*index].config.name.as_str())
        .collect();
    let whose = match decision.way {
        Some(Way::Replacement) => "the site's libfabric",
        _ => "the image's libfabric",
    };
    if !names.is_empty() {
        plan.note(format!("providers for {whose}: {}", names.join(", ")));
    }
    plan.notes.extend(decision.notes.iter().cloned());
    if required && !decision.refused.is_empty() {
        let failure = "this container cannot use the fabric, which the site requires";
        let failure = decision.refused.iter().fold(Failure::new(failure), Failure::because);
        let hint = "an image with a newer libfabric and C library, or `--glibc`, may help";
        return Err(failure.hint(hint));
    }
    for reason in &decision.refused {
        plan.warn(format!("without the fabric: {reason}"));
    }
    Ok(())
}

fn steps(
    plan: &mut Plan,
    container: &Container,
    config: &Config,
    (node, decision): (&Node<'_>, &Decision),
) {
    for placed in &decision.files {
        plan.step(Step::bind(&placed.source, &placed.destination), &placed.reason);
    }
    let named = decision.files.iter();
    let libraries: Vec<(String, PathBuf)> = named
        .filter_map(|placed| Some((placed.name.clone()?, placed.destination.clone())))
        .collect();
    if !libraries.is_empty() {
        plan.step(Step::LdCache { libraries }, "so that the loader finds them");
    }
    let used = || decision.providers.iter().map(|index| &node.providers[*index]);
    for provider in used() {
        let reason = format!("a device of provider `{}`", provider.config.name);
        devices(plan, &provider.devices, &reason);
        mounts(plan, &provider.config.mounts, &format!("for provider `{}`", provider.config.name));
    }
    devices(plan, &node.devices, "a device of the site's fabric");
    mounts(plan, &config.mounts, "for the site's fabric");
    if let Some(directory) = &decision.directory {
        let value = directory.display().to_string();
        let reason = "where libfabric looks for providers";
        variable(plan, container, (FI_PROVIDER_PATH, &value), reason);
    }
    for provider in used() {
        let reason = format!("for provider `{}`", provider.config.name);
        variables(plan, container, &provider.config.variables, &reason);
    }
    if let Some(plugin) = node.plugin.as_ref().filter(|_| decision.with_plugin) {
        variables(plan, container, &plugin.variant.variables, "for NCCL's plug-in");
    }
    variables(plan, container, &config.variables, "for the site's fabric");
}

fn devices(plan: &mut Plan, nodes: &Nodes, reason: &str) {
    for (source, destination) in nodes {
        let known = plan.steps.iter().any(
            |planned| matches!(&planned.step, Step::Device { destination: known, .. } if known == destination),
        );
        if !known {
            let (source, destination) = (source.clone(), destination.clone());
            let access = "rw".to_owned();
            plan.step(Step::Device { source, destination, access }, reason);
        }
    }
}

fn mounts(plan: &mut Plan, mounts: &[Mount], reason: &str) {
    for (source, destination) in mounts.iter().map(Mount::paths) {
        if source.exists() {
            plan.step(Step::bind(source, destination), reason);
        } else {
            plan.note(format!("this node has no `{}`", source.display()));
        }
    }
}

fn variables(
    plan: &mut Plan,
    container: &Container,
    variables: &BTreeMap<String, String>,
    reason: &str,
) {
    for (name, value) in variables {
        variable(plan, container, (name, value), reason);
    }
}

/// What the image or the user set stays.
fn variable(plan: &mut Plan, container: &Container, (name, value): (&str, &str), reason: &str) {
    match container.variable(name) {
        Some(own) if own == value => {}
        Some(own) => plan.note(format!("`{name}` stays `{own}`, and not `{value}`")),
        None => plan.step(Step::variable(name, value), reason),
    }
}
