//! The hook `timestamp`: a line with the time in a log that the container's user names.
//!
//! Variables and the line's format are those of Sarus 1.7: `docs/hooks/timestamp.md`.

mod log_file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sarus_hook::{Container, Failure, Plan};

/// The container's variable that names the log.
const LOG_FILE: &str = "TIMESTAMP_HOOK_LOGFILE";

fn main() -> ExitCode {
    // The SDK enters the container; the log is outside.
    let outside = log_file::outside();
    let message = std::env::var("TIMESTAMP_HOOK_MESSAGE").unwrap_or_default();
    sarus_hook::run("timestamp", |container| {
        let mut plan = Plan::default();
        let Some(path) = log_path(container)? else {
            plan.note(format!("the container has no variable `{LOG_FILE}`"));
            return Ok(plan);
        };
        let what = format!("append a time stamp to `{}`", path.display());
        let person = container.person();
        plan.act(what, format!("the container's variable `{LOG_FILE}`"), move || {
            let line = line(now(), &log_file::host_name(), std::process::id(), &message);
            log_file::append(outside, &person, &path, &line)
        });
        Ok(plan)
    })
}

fn log_path(container: &Container) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = container.variable(LOG_FILE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    if Path::new(path).is_absolute() {
        return Ok(Some(path.into()));
    }
    Err(Failure::new(format!("cannot write a time stamp to `{path}`"))
        .because("it is not an absolute path")
        .hint(format!("set `{LOG_FILE}` to an absolute path on the host, or unset it")))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn line(now: Duration, host: &str, pid: u32, message: &str) -> String {
    // One line a stamp, whatever the message has.
    let message: String = message.chars().filter(|letter| !letter.is_control()).collect();
    let (seconds, nanoseconds) = (now.as_secs(), now.subsec_nanos());
    format!("[{seconds}.{nanoseconds:09}] [{host}-{pid}] [hook] [INFO] Timestamp hook: {message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_the_format_of_sarus_1_7() {
        let now = Duration::new(1_552_438_146, 4_494_630);
        assert_eq!(
            line(now, "nid07641", 16741, "After-runtime"),
            "[1552438146.004494630] [nid07641-16741] [hook] [INFO] Timestamp hook: After-runtime\n"
        );
        assert_eq!(line(now, "n", 1, "a\nb").lines().count(), 1);
    }

    #[test]
    fn the_containers_variable_names_the_log() {
        for (variables, want) in [
            (json!([]), Ok(None)),
            (json!(["TIMESTAMP_HOOK_LOGFILE="]), Ok(None)),
            (json!(["TIMESTAMP_HOOK_LOGFILE=/scratch/log"]), Ok(Some("/scratch/log".into()))),
            (json!(["TIMESTAMP_HOOK_LOGFILE=log"]), Err(())),
        ] {
            let container = Container::new(None, json!({"process": {"env": variables}}));
            let got = log_path(&container).map_err(|_failure| ());
            assert_eq!(got, want, "{variables}");
        }
    }
}
