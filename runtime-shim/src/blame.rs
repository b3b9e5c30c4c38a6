//! Which hook it was that failed, and in whose words: what is said of it, translated. Pure.
//!
//! runc counts the hooks of a stage and leaves the stage out, as versions before 1.2 do, and passes
//! on more than helps. Under crun it is `sarus-entry` that says what becomes of each hook.

use std::borrow::Cow;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use sarus_config::hooks::{Hook, Stage};
use sarus_entry::mark;

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

/// A hook that failed, as it is said.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    /// Its number in the stage.
    number: usize,
    stage: Option<Stage>,
    program: Option<&'a str>,
    how: How,
    words: &'a str,
}

/// The hook that failed, if that is what the output of a runtime and its hooks says. `stages` are
/// those that have run or may have.
pub(crate) fn find(output: &str, hooks: &[Hook], stages: &[Stage]) -> Option<Blame> {
    let output = &*plain(output);
    let said = match Marked::split(output) {
        Some(_) => of_marks(output, stages)?,
        None => of_runc(output)?,
    };
    let found = candidates(hooks, stages, &said);
    let which = match (&found[..], said.program, said.stage) {
        // One that another hook has added.
        ([], Some(program), Some(stage)) => format!("hook `{program}` (stage {stage})"),
        ([], ..) => "a hook".to_owned(),
        ([(hook, stage)], ..) => name(hook, Some(*stage)),
        _ => {
            let names: Vec<String> =
                found.iter().map(|(hook, stage)| name(hook, Some(*stage))).collect();
            format!("one of {}", names.join(", "))
        }
    };
    let limit = match found[..] {
        [(hook, _)] => hook.timeout.map(|limit| format!("{} s", limit.as_secs())),
        _ => None,
    };
    let how = match (said.how, limit) {
        (How::Ended(how), _) => how,
        (How::TimedOut, limit) => {
            let limit = limit.as_deref().unwrap_or("its `timeout`");
            format!("it did not end within {limit} and was killed")
        }
    };
    Some(Blame { which, how, words: Words::of(said.words) })
}

/// The hooks that may be meant.
fn candidates<'h>(hooks: &'h [Hook], stages: &[Stage], said: &Said<'_>) -> Vec<(&'h Hook, Stage)> {
    let meant = stages.iter().filter(|stage| said.stage.is_none_or(|said| said == **stage));
    let meant = meant.filter_map(|stage| {
        let hook = hooks.iter().filter(|hook| hook.stages.contains(stage)).nth(said.number)?;
        Some((hook, *stage))
    });
    meant.collect()
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
fn of_runc(output: &str) -> Option<Said<'_>> {
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
    Some(Said { number, stage, program: None, how, words })
}

/// What `sarus-entry` wrote of a hook, and what the hook wrote meanwhile.
struct Marked<'a> {
    /// What was said before it.
    before: &'a str,
    /// The stage, a slash, the number in it, a space, the program.
    title: &'a str,
    words: &'a str,
    /// The mark at the end and the number after it, if there is one.
    end: Option<(char, i32)>,
    /// What was said after it.
    rest: &'a str,
}

const STARTED: char = mark::STARTED as char;
const ENDED: char = mark::ENDED as char;
const NOT_EXECUTED: char = mark::NOT_EXECUTED as char;
const TIMED_OUT: char = mark::TIMED_OUT as char;

impl<'a> Marked<'a> {
    /// The first in the text.
    fn split(text: &'a str) -> Option<Self> {
        let (before, text) = text.split_once(STARTED)?;
        let (title, text) = text.split_once('\n')?;
        let own = text.find(STARTED).map_or(text, |next| &text[..next]);
        let end = own.find([ENDED, NOT_EXECUTED, TIMED_OUT]).and_then(|at| {
            let (number, _) = own[at + 1..].split_once('\n')?;
            Some((at, own[at..].chars().next()?, number, number.parse().ok()?))
        });
        Some(match end {
            Some((at, mark, number, value)) => Self {
                before,
                title,
                words: &own[..at],
                end: Some((mark, value)),
                rest: &text[at + 1 + number.len() + 1..],
            },
            None => Self { before, title, words: own, end: None, rest: &text[own.len()..] },
        })
    }

    fn how(&self, program: &str) -> How {
        match self.end {
            None => How::Ended("it was killed".to_owned()),
            Some((TIMED_OUT, _)) => How::TimedOut,
            Some((NOT_EXECUTED, number)) => {
                let why = std::io::Error::from_raw_os_error(number);
                How::Ended(format!("cannot execute `{program}`: {why}"))
            }
            Some((_, status)) => How::Ended(ExitStatus::from_raw(status).to_string()),
        }
    }
}

/// The first hook of those stages that failed.
fn of_marks<'a>(mut output: &'a str, stages: &[Stage]) -> Option<Said<'a>> {
    while let Some(marked) = Marked::split(output) {
        output = marked.rest;
        let parsed = || {
            let (place, program) = marked.title.split_once(' ')?;
            let (stage, number) = place.split_once('/')?;
            let stage = Stage::ALL.into_iter().find(|known| known.name() == stage)?;
            Some((stage, number.parse().ok()?, program))
        };
        let Some((stage, number, program)) = parsed() else { continue };
        if stages.contains(&stage) && marked.end != Some((ENDED, 0)) {
            let how = marked.how(program);
            let words = marked.words;
            return Some(Said { number, stage: Some(stage), program: Some(program), how, words });
        }
    }
    None
}

/// What of the output is the runtime's own.
pub(crate) fn of_runtime(mut output: &str) -> String {
    let mut own = String::new();
    while let Some(marked) = Marked::split(output) {
        own.push_str(marked.before);
        output = marked.rest;
    }
    own + output
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
    fn what_is_marked_is_translated() {
        let good = "\u{2}createRuntime/0 /bin/a\nall is well\n\u{3}0000000000\n";
        let bad = "\u{2}createContainer/0 /bin/b\nerror: hook b: no\n  caused by: why\nhint: do\n\u{3}0000000256\n";
        let output = format!("{good}{bad}2026-11-25T18:00:00.000000Z: error executing hook\n");
        let found = find(&output, &hooks(), &[Stage::CreateRuntime, Stage::CreateContainer]);
        let want = Blame {
            which: "hook `/h/b.json` (stage createContainer)".into(),
            how: "exit status: 1".into(),
            words: Words {
                causes: vec!["hook b: no".into(), "why".into()],
                hint: Some("do".into()),
            },
        };
        assert_eq!(found.unwrap(), want);
        assert_eq!(find(&output, &hooks(), &[Stage::CreateRuntime]), None);
        assert_eq!(find(good, &hooks(), &Stage::ALL), None);
        assert_eq!(of_runtime(&output), "2026-11-25T18:00:00.000000Z: error executing hook\n");
    }

    #[test]
    fn every_end_of_a_hook_has_its_words() {
        for (said, which, how) in [
            (
                "createContainer/1 /bin/c\n\u{3}0000000139\n",
                "hook `/h/c.json` (stage createContainer)",
                "signal: 11 (SIGSEGV) (core dumped)",
            ),
            ("poststop/0 /bin/b\nwords", "hook `/h/b.json` (stage poststop)", "it was killed"),
            (
                "createContainer/1 /bin/c\nthe runtime's\n\u{18}0000000009\n\u{2}poststop/0 /bin/b\n\u{3}0000000000\n",
                "hook `/h/c.json` (stage createContainer)",
                "it did not end within 7 s and was killed",
            ),
            (
                "createRuntime/7 /bin/x\n\u{15}0000000002\n\u{3}0000032512\n",
                "hook `/bin/x` (stage createRuntime)",
                "cannot execute `/bin/x`: No such file or directory (os error 2)",
            ),
        ] {
            let mut hooks = hooks();
            hooks[2].timeout = Some(std::time::Duration::from_secs(7));
            let found = find(&format!("\u{2}{said}"), &hooks, &Stage::ALL).unwrap();
            assert_eq!((found.which.as_str(), found.how.as_str()), (which, how), "{said:?}");
        }
    }

    #[test]
    fn what_is_no_hooks_failure_is_none() {
        for output in [
            "",
            "exec failed: no such file",
            "hook #",
            "\u{2}",
            "\u{2}\n",
            "\u{2}createRuntime/x /bin/a\n",
            "\u{2}nostage/0 /bin/a\n",
        ] {
            assert_eq!(find(output, &hooks(), &Stage::ALL), None, "{output:?}");
        }
    }

    #[test]
    fn words_are_bounded_and_plain() {
        let words = Words::of(&"x".repeat(1 << 20));
        assert_eq!(words.causes[0].chars().count(), SAID_MAX + 2);
        assert_eq!(Words::of("a\u{1b}[31mb\n\n").causes, ["a[31mb"]);
        assert_eq!(Words::of(" \n"), Words::default());
    }
}
