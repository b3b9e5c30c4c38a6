//! OCI hook: gives a container the host's MPI libraries in place of the image's.
//!
//! What it decides and why, its settings and its messages: `docs/hooks/mpi.md`. `settings` reads what the
//! site says, `host` the libraries of a stack, `image` what the image has and needs; `decide` compares
//! them, `place` says what goes where.

mod decide;
mod family;
mod host;
mod image;
mod place;
mod settings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sarus_hook::{Container, Failure, Plan};

use crate::decide::{Fit, Reason};
use crate::host::Host;
use crate::image::{Command, Image, Question};
use crate::place::Surroundings;
use crate::settings::Settings;

/// Shells are linked statically in some images, and only start what matters.
const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "busybox", "env"];

fn main() -> ExitCode {
    sarus_hook::run("mpi", plan)
}

fn plan(container: &Container) -> Result<Plan, Failure> {
    let settings = Settings::from_environment()?;
    let candidates = settings.candidates(container.annotation("com.hooks.mpi.type"))?;
    let mut refused: Vec<(String, Reason)> = Vec::new();
    let mut hosts = Vec::new();
    for stack in candidates {
        match Host::read(stack) {
            Ok(host) => hosts.push(host),
            Err(failure) => {
                let reason = Reason::Unreadable(failure.sentence());
                refused.push((stack.name.clone(), reason));
            }
        }
    }
    let Some(format) = hosts.first().and_then(Host::format) else {
        return Err(refusal(&refused));
    };
    let question = Question {
        format,
        command: container.command(),
        directory: directory(container),
        variables: container.variables().clone(),
    };
    let image = container.survey(|root| image::look(root, &question))?;
    let mut plan = Plan::default();
    if let Some(warning) = nothing_to_do(&image) {
        plan.warn(warning);
        return Ok(plan);
    }
    if let Command::Static(path) = &image.command {
        say_static(&mut plan, path);
    }
    for host in &hosts {
        match examine(container, &question, host, (&image, &settings)) {
            Ok((fit, around)) => {
                plan.note(format!("the host's MPI `{}` fits", host.stack.name));
                for (name, reason) in &refused {
                    plan.note(format!("`{name}` was not taken: {reason}"));
                }
                plan.notes.extend(fit.notes.iter().cloned());
                place::add_steps(&mut plan, host, &fit, &around);
                return Ok(plan);
            }
            Err(Refused::Fits(reasons)) => {
                let name = &host.stack.name;
                refused.extend(reasons.into_iter().map(|reason| (name.clone(), reason)));
            }
            Err(Refused::Failed(failure)) => return Err(failure),
        }
    }
    Err(refusal(&refused))
}

/// Why a stack is not taken.
enum Refused {
    /// It does not fit.
    Fits(Vec<Reason>),
    /// The container could not be looked at.
    Failed(Failure),
}

/// Compares one stack with the image, and looks where its libraries would go.
fn examine(
    container: &Container,
    question: &Question,
    host: &Host<'_>,
    (image, settings): (&Image, &Settings),
) -> Result<(Fit, Surroundings), Refused> {
    let fit = decide::fit(host, image, settings.compatibility).map_err(Refused::Fits)?;
    let around = container.survey(|root| place::look(root, question, (host, &fit, image)));
    let around = around.map_err(Refused::Failed)?;
    let going_in = place::injected(host, &around).map(|(_, library)| library);
    let missing = around.missing.iter().cloned();
    let mut reasons: Vec<Reason> = missing.map(|(by, name)| Reason::Missing { by, name }).collect();
    reasons.extend(decide::compare_libc(going_in, &image.libc));
    if reasons.is_empty() { Ok((fit, around)) } else { Err(Refused::Fits(reasons)) }
}

/// Why nothing can be done for an image, although it may start.
fn nothing_to_do(image: &Image) -> Option<String> {
    const SO: &str = "the container starts with what the image has";
    if let Command::OtherLoader(loader) = &image.command {
        return Some(format!(
            "the host's MPI is not injected: the command's loader is `{loader}`, and the host's \
             libraries need the GNU C library; {SO}"
        ));
    }
    if !image.has_cache {
        let because = if image.is_musl {
            "the image's C library is musl, and the host's libraries need the GNU C library"
        } else {
            "the image has no `/etc/ld.so.cache`, by which its loader would find them"
        };
        return Some(format!("the host's MPI is not injected: {because}; {SO}"));
    }
    if image.libraries.is_empty() {
        let also = match &image.command {
            Command::Static(path) => {
                format!(
                    "; `{}` is linked statically: it has what it was built with",
                    path.display()
                )
            }
            _ => String::new(),
        };
        return Some(format!(
            "the host's MPI is not injected: the image has no MPI library that it could stand for{also}"
        ));
    }
    None
}

fn say_static(plan: &mut Plan, path: &Path) {
    let text = format!(
        "`{}` is linked statically: if it uses MPI it is the one that it was built with, not the host's",
        path.display()
    );
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if SHELLS.contains(&&*name) { plan.note(text) } else { plan.warn(text) }
}

fn directory(container: &Container) -> PathBuf {
    let directory = container.configuration()["process"]["cwd"].as_str();
    PathBuf::from(directory.unwrap_or("/"))
}

/// One error of all that was refused.
fn refusal(refused: &[(String, Reason)]) -> Failure {
    let mut failure = Failure::new("cannot give the container the host's MPI");
    let is_one = refused.iter().all(|(name, _)| *name == refused[0].0);
    for (name, reason) in refused {
        failure = if is_one {
            failure.because(reason)
        } else {
            failure.because(format!("type `{name}`: {reason}"))
        };
    }
    // What would help most comes first: a newer C library before another MPI.
    let hints = refused.iter().map(|(_, reason)| reason.hint());
    let libc = refused.iter().find(|(_, reason)| matches!(reason, Reason::Libc { .. }));
    match libc.map(|(_, reason)| reason.hint()).or(hints.into_iter().next()) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
