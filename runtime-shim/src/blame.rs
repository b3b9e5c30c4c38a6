//! Which hook it was that failed, and in whose words: what a runtime says of it, translated. Pure.
//!
//! runc counts the hooks of a stage and leaves the stage out, as versions before 1.2 do; crun names
//! the program alone. Both pass on more than helps.

use std::borrow::Cow;

use sarus_config::hooks::{Hook, Stage};

/// How a hook ended.
#[derive(Debug, PartialEq, Eq)]
enum How {
    /// In those words.
    Ended(String),
    /// It was killed at its time-out.
    TimedOut,
}

/// Most of a program's words that go into an error, in characters.
const SAID_MAX: usize = 2000;

/// A hook that failed, as an error has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blame {
    /// Which hook: "hook `FILE` failed at the stage `STAGE`", as far as it is known.
    pub(crate) which: String,
    /// How it ended.
    pub(crate) how: String,
    /// Its own words.
    pub(crate) words: Words,
}

impl Blame {
    /// For a failure that nothing follows from.
    pub(crate) fn warning(&self) -> String {
        let first = format!("warning: {} failed: {}", self.which, self.how);
        let causes = self.words.causes.iter().map(|cause| format!("\n  caused by: {cause}"));
        std::iter::once(first).chain(causes).collect()
    }
}

/// What a program said of its failure.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Words {
    /// From the outermost to the innermost.
    pub(crate) causes: Vec<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// How a runtime says that a hook failed.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// The hook of that number in a stage.
    Number(usize, Option<Stage>),
    /// A hook with that program.
    Program(&'a str),
    /// Nothing: any that runs before the runtime is done.
    Lost,
}

/// The hook that failed, if that is what the runtime's output says. `stages` are those that have
/// run or may have.
pub(crate) fn find(output: &str, hooks: &[Hook], stages: &[Stage]) -> Option<Blame> {
    let output = &*plain(output);
    let (said, how, words) = of_runc(output).or_else(|| of_crun(output))?;
    let found = candidates(hooks, stages, &said);
    if said == Said::Lost && found.is_empty() {
        return None;
    }
    let which = match found[..] {
        [] => "a hook".to_owned(),
        [(hook, stage)] => name(hook, Some(stage)),
        [(first, _), ..] if found.iter().all(|(hook, _)| hook.file == first.file) => {
            name(first, None)
        }
        _ => {
            let names: Vec<String> =
                found.iter().map(|(hook, stage)| name(hook, Some(*stage))).collect();
            format!("one of {}", names.join(", "))
        }
    };
    let limit = match found[..] {
        [(hook, _)] => hook.timeout,
        _ => None,
    };
    let how = match (how, limit) {
        (How::Ended(how), _) => how,
        (How::TimedOut, Some(limit)) => timed_out(&format!("{} s", limit.as_secs())),
        (How::TimedOut, None) => timed_out("its `timeout`"),
    };
    Some(Blame { which, how, words: Words::of(words) })
}

/// The hooks that the runtime may mean.
fn candidates<'h>(hooks: &'h [Hook], stages: &[Stage], said: &Said<'_>) -> Vec<(&'h Hook, Stage)> {
    let mut found = Vec::new();
    for stage in stages {
        let in_stage = hooks.iter().filter(|hook| hook.stages.contains(stage));
        for (index, hook) in in_stage.enumerate() {
            let is_it = match *said {
                Said::Number(number, of) => index == number && of.is_none_or(|of| of == *stage),
                Said::Program(path) => hook.path.to_str() == Some(path),
                Said::Lost => *stage != Stage::Poststop,
            };
            if is_it {
                found.push((hook, *stage));
            }
        }
    }
    found
}

/// A hook as an error names it.
pub(crate) fn name(hook: &Hook, stage: Option<Stage>) -> String {
    let file = hook.file.display();
    stage.map_or(format!("hook `{file}`"), |stage| format!("hook `{file}` (stage {stage})"))
}

/// runc's log has its messages in quotes, with escapes: `time="…" level=error msg="…\n"`.
fn plain(output: &str) -> Cow<'_, str> {
    match output.split_once("level=error msg=\"") {
        Some((_, message)) => {
            let message = message.lines().next().unwrap_or_default().trim_end_matches('"');
            Cow::Owned(message.replace("\\n", "\n").replace("\\\"", "\""))
        }
        None => Cow::Borrowed(output),
    }
}

/// `error running [STAGE ]hook #N: [error running hook: ]HOW[, stdout: WORDS, stderr: WORDS]`
fn of_runc(output: &str) -> Option<(Said<'_>, How, &str)> {
    const START: &str = "error running ";
    // After a failure it runs the hooks of the stage `poststop`, and says of those before.
    let output = output.rfind("run failed: ").map_or(output, |at| &output[at..]);
    let at = output.find("hook #")?;
    let start = output[..at].rfind(START)? + START.len();
    let stage = output[start..at].trim();
    let stage = Stage::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(stage));
    let (number, rest) = output[at + "hook #".len()..].split_once(": ")?;
    let number = number.parse().ok()?;
    let rest = rest.strip_prefix("error running hook: ").unwrap_or(rest);
    let (how, words) = rest.split_once(", stdout: ").unwrap_or((rest, ""));
    let how = if how.starts_with("hook ran past specified timeout") {
        How::TimedOut
    } else {
        let line = how.lines().next().unwrap_or_default();
        How::Ended(line.replace("exit status ", "exit status: "))
    };
    let (stdout, stderr) = words.split_once(", stderr: ").unwrap_or((words, ""));
    let words = if stderr.trim().is_empty() { stdout } else { stderr };
    Some((Said::Number(number, stage), how, words))
}

/// ``WORDS error executing hook `PROGRAM` (exit code: N)``; ``timeout expired for `PROGRAM` ``
fn of_crun(output: &str) -> Option<(Said<'_>, How, &str)> {
    const ENDED: &str = "error executing hook `";
    const LATE: &str = "timeout expired for `";
    // After a hook that failed, crun asks the container's first process why; when that has ended
    // already, this is all that is left of the message.
    const LOST: &str = "read from the init process";
    let places = [(output.find(ENDED), ENDED), (output.find(LATE), LATE)];
    let Some((at, start)) = places.into_iter().find_map(|(at, start)| Some((at?, start))) else {
        let words = &output[..output.find(LOST)?];
        return Some((Said::Lost, How::Ended("crun does not say how".to_owned()), words));
    };
    let (program, rest) = output[at + start.len()..].split_once('`')?;
    let code = rest.strip_prefix(" (exit code: ").and_then(|rest| rest.split(')').next());
    let how = match code {
        Some(code) if code != "-1" => How::Ended(format!("exit status: {code}")),
        _ => How::TimedOut,
    };
    // What hooks say goes to the same file before; what crun says may have a time before it.
    let words = &output[..at];
    let line = words.rfind('\n').map_or(words, |end| &words[end + 1..]);
    let is_time = line.starts_with(|first: char| first.is_ascii_digit()) && line.ends_with("Z: ");
    let words = if is_time { &words[..words.len() - line.len()] } else { words };
    // What the first process says when it goes on without a command.
    let words = words.trim_end().trim_end_matches("executable path not specified");
    Some((Said::Program(program), how, words))
}

fn timed_out(limit: &str) -> String {
    format!("it did not end within {limit} and was killed")
}

impl Words {
    /// From a program's output: its end, where it is long. An error in the engine's own form is
    /// taken apart again.
    pub(crate) fn of(text: &str) -> Self {
        let text = text.trim();
        let start = text.char_indices().rev().nth(SAID_MAX).map(|(start, _)| start);
        let text = start.map_or_else(|| text.to_owned(), |start| format!("…{}", &text[start..]));
        let mut words = Self::default();
        for line in text.lines() {
            let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
            if let Some(hint) = line.strip_prefix("hint: ") {
                words.hint = Some(hint.to_owned());
                continue;
            }
            let starts = ["error: ", "  caused by: "];
            let start = starts.iter().find_map(|start| line.strip_prefix(start));
            match (start, words.causes.last_mut()) {
                (None, Some(last)) => *last = format!("{last}; {}", line.trim()),
                (start, _) => words.causes.push(start.unwrap_or(line.trim()).to_owned()),
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn hook(name: &str, program: &str, stages: &str) -> Hook {
        let text = format!(
            r#"{{"version":"1.0.0","hook":{{"path":"{program}"}},"when":{{"always":true}},"stages":[{stages}]}}"#
        );
        Hook::parse(&text, Path::new(name)).unwrap()
    }

    fn hooks() -> Vec<Hook> {
        vec![
            hook("/h/a.json", "/bin/a", r#""createRuntime""#),
            hook("/h/b.json", "/bin/b", r#""createContainer","poststop""#),
            hook("/h/c.json", "/bin/c", r#""createContainer""#),
        ]
    }

    #[test]
    fn what_runc_says_is_translated() {
        let before =
            "runc run failed: unable to start container process: error during container init: ";
        for (said, which, how, causes) in [
            (
                "error running hook #1: error running hook: exit status 3, stdout: out\n, stderr: no licence\nat all\n",
                "hook `/h/c.json` (stage createContainer)",
                "exit status: 3",
                vec!["no licence; at all"],
            ),
            (
                "error running hook #0: hook ran past specified timeout of 1.0s\n",
                "one of hook `/h/a.json` (stage createRuntime), hook `/h/b.json` (stage createContainer)",
                "it did not end within its `timeout` and was killed",
                vec![],
            ),
            (
                "error running createContainer hook #0: signal: killed, stdout: words, stderr: ",
                "hook `/h/b.json` (stage createContainer)",
                "signal: killed",
                vec!["words"],
            ),
            (
                "x\nrunc run failed: error running hook #1: error running hook: signal: killed, stdout: , stderr: w",
                "hook `/h/c.json` (stage createContainer)",
                "signal: killed",
                vec!["w"],
            ),
        ] {
            let stages = [Stage::CreateRuntime, Stage::CreateContainer];
            let found = find(&format!("{before}{said}"), &hooks(), &stages).unwrap();
            assert_eq!((found.which.as_str(), found.how.as_str()), (which, how), "{said}");
            assert_eq!(found.words.causes, causes, "{said}");
        }
    }

    #[test]
    fn what_runcs_log_says_is_translated() {
        let log = r#"time="2026-11-25T18:50:48Z" level=error msg="error running hook #0: error running hook: exit status 3, stdout: , stderr: no \"key\"\n""#;
        let found = find(&log.replace("\\\\", "\\"), &hooks(), &[Stage::Poststop]).unwrap();
        assert_eq!(found.which, "hook `/h/b.json` (stage poststop)");
        assert_eq!(
            (found.how.as_str(), &found.words.causes[..]),
            ("exit status: 3", &["no \"key\"".to_owned()][..])
        );
    }

    #[test]
    fn what_crun_says_is_translated() {
        let output = "error: hook b: no\n  caused by: why\nhint: do\n2026-11-25T18:00:00.000000Z: error executing hook `/bin/b` (exit code: 1)\n";
        let found = find(output, &hooks(), &[Stage::CreateContainer]).unwrap();
        let want = Blame {
            which: "hook `/h/b.json` (stage createContainer)".into(),
            how: "exit status: 1".into(),
            words: Words {
                causes: vec!["hook b: no".into(), "why".into()],
                hint: Some("do".into()),
            },
        };
        assert_eq!(found, want);
        let unfinished = "no end error executing hook `/bin/b` (exit code: 1)";
        let found = find(unfinished, &hooks(), &[Stage::CreateContainer]).unwrap();
        assert_eq!(found.words.causes, ["no end"]);
        let late = "timeout expired for `/bin/c`\n";
        assert!(find(late, &hooks(), &Stage::ALL).unwrap().how.contains("did not end"));
        let late = "error executing hook `/bin/b` (exit code: -1)\ntimeout expired for `/bin/b`\n";
        let found = find(late, &hooks(), &Stage::ALL).unwrap();
        assert_eq!(found.which, "hook `/h/b.json`", "both of its stages");
        assert!(found.how.contains("did not end"), "{}", found.how);
    }

    #[test]
    fn what_is_no_hooks_failure_is_none() {
        for output in ["", "exec failed: no such file", "hook #", "error executing hook `"] {
            assert_eq!(find(output, &hooks(), &Stage::ALL), None, "{output}");
        }
        let lost = "words\nread from the init process\n";
        assert_eq!(find(lost, &[], &Stage::ALL), None, "no hook there");
        assert_eq!(find(lost, &hooks(), &[Stage::Poststop]), None, "it was not their time");
        let found = find(lost, &hooks()[1..2], &[Stage::CreateContainer]).unwrap();
        assert_eq!(found.which, "hook `/h/b.json` (stage createContainer)");
        assert_eq!(found.words.causes, ["words"]);
        let elsewhere = "error executing hook `/bin/seal` (exit code: 1)";
        assert_eq!(find(elsewhere, &hooks(), &Stage::ALL).unwrap().which, "a hook");
    }

    #[test]
    fn words_are_bounded_and_plain() {
        let words = Words::of(&"x".repeat(1 << 20));
        assert_eq!(words.causes[0].chars().count(), SAID_MAX + 2);
        assert_eq!(Words::of("a\u{1b}[31mb\n\n").causes, ["a[31mb"]);
        assert_eq!(Words::of(" \n"), Words::default());
    }
}
