//! Whether a hook runs, and the reason in words.

use std::collections::BTreeMap;

use regex::Regex;

use super::{Hook, When};

/// What the conditions of hooks look at.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// The container's annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// The user's command: its first word, as given or as resolved in the image.
    pub command: &'a str,
    /// Whether the user or the site asked for bind mounts.
    pub has_bind_mounts: bool,
}

/// Whether a hook runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// It runs.
    pub runs: bool,
    /// All conditions that hold, or the first that does not. Without control characters, which
    /// annotations and patterns may have: `?` stands for each.
    pub reason: String,
}

impl Hook {
    /// Decides whether the hook runs: all its conditions must hold.
    pub fn decide(&self, occasion: &Occasion<'_>) -> Decision {
        let (runs, reason) = match self.when.examine(occasion) {
            Ok(reasons) => (true, reasons.join(", and ")),
            Err(reason) => (false, reason),
        };
        let reason = reason.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Decision { runs, reason }
    }

    /// Whether `when.annotations` has a condition on the annotation of that name.
    pub fn heeds(&self, annotation: &str) -> bool {
        self.when.annotations.iter().any(|(name, _)| name.is_match(annotation))
    }
}

/// The hooks that run, in their order.
pub fn select<'h>(hooks: &'h [Hook], occasion: &Occasion<'_>) -> Vec<&'h Hook> {
    hooks.iter().filter(|hook| hook.decide(occasion).runs).collect()
}

impl When {
    /// What holds, of every condition, or the first that does not. As in Podman, a condition set to
    /// `false` never holds.
    fn examine(&self, occasion: &Occasion<'_>) -> Result<Vec<String>, String> {
        let mut reasons = Vec::new();
        match self.always {
            Some(true) => reasons.push("it always runs".to_owned()),
            Some(false) => return Err("`when.always` is `false`".to_owned()),
            None => {}
        }
        match self.has_bind_mounts {
            Some(true) if occasion.has_bind_mounts => {
                reasons.push("there are bind mounts".to_owned());
            }
            Some(true) => return Err("there are no bind mounts".to_owned()),
            Some(false) => return Err("`when.hasBindMounts` is `false`".to_owned()),
            None => {}
        }
        for (name, value) in &self.annotations {
            reasons.push(annotation(occasion.annotations, name, value)?);
        }
        if !self.commands.is_empty() {
            reasons.push(command(occasion.command, &self.commands)?);
        }
        Ok(reasons)
    }
}

fn annotation(
    annotations: &BTreeMap<String, String>,
    name: &Regex,
    value: &Regex,
) -> Result<String, String> {
    let named = || annotations.iter().filter(|(key, _)| name.is_match(key));
    if let Some((key, given)) = named().find(|(_, given)| value.is_match(given)) {
        return Ok(format!("annotation `{key}` is `{given}`"));
    }
    match named().next() {
        Some((key, given)) => {
            Err(format!("annotation `{key}` is `{given}`, which does not match `{value}`"))
        }
        None => Err(format!("no annotation matches `{name}`")),
    }
}

fn command(command: &str, patterns: &[Regex]) -> Result<String, String> {
    if let Some(pattern) = patterns.iter().find(|pattern| pattern.is_match(command)) {
        return Ok(format!("command `{command}` matches `{pattern}`"));
    }
    let all: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    Err(format!("command `{command}` does not match {}", all.join(" or ")))
}
