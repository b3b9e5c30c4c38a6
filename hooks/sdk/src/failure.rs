//! Why a hook failed or refused, in words for the user whose container does not start.

use std::fmt;

/// One error: what could not be done, why, and what would help.
///
/// Shown as `error: WHAT`, `  caused by: CAUSE` for each cause, `hint: HINT`.
#[derive(Debug)]
pub struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// What could not be done, with the object: `cannot mount `/opt/x` on `/usr/lib/x``.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), hint: None }
    }

    /// Adds a cause below those given before.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Makes it the first cause of another, whose hint is its own.
    #[must_use]
    pub fn within(self, what: impl Into<String>) -> Self {
        let causes = std::iter::once(self.what).chain(self.causes).collect();
        Self { what: what.into(), causes, hint: self.hint }
    }

    /// On one line, without the hint: `WHAT: CAUSE: CAUSE`.
    pub fn sentence(&self) -> String {
        let words = std::iter::once(&self.what).chain(&self.causes);
        words.map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    /// Says what the user or the administrator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_within_another_is_its_cause() {
        let failure =
            Failure::new("cannot read `x`").because("denied").hint("ask").within("cannot start");
        assert_eq!(
            failure.to_string(),
            "cannot start\n  caused by: cannot read `x`\n  caused by: denied\nhint: ask"
        );
        assert_eq!(failure.sentence(), "cannot start: cannot read `x`: denied");
    }
}
