//! The guide for authors of hooks: its source, its file and its commands are those that work.

use std::path::{Path, PathBuf};

use sarus_integration_tests::{Runtime, Who};
use serde_json::{Value, json};

use crate::Ground;

const GUIDE: &str = include_str!("../../../docs/HOOKS.md");
const SOURCE: &str = include_str!("../../../hooks/example/src/main.rs");
const FILE: &str = include_str!("../../../hooks/example/50-licence.json");

/// Stands before the output of each command.
const MARK: &str = "=== next command";

/// The blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let start = format!("```{language}\n");
    GUIDE.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// The commands and what each prints.
fn commands() -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in blocks("console").concat().lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), String::new()));
        } else if let Some(more) = line.strip_prefix('>') {
            let (command, _) = commands.last_mut().unwrap();
            *command = format!("{command}\n{more}");
        } else {
            let (_, output) = commands.last_mut().unwrap();
            *output = format!("{output}{line}\n");
        }
    }
    commands
}

#[test]
fn the_example_is_shown_as_it_is() {
    let shown = blocks("rust")[0];
    assert!(SOURCE.contains(shown), "docs/HOOKS.md and hooks/example differ");
    assert!(shown.lines().count() <= 35, "the example is short");
    assert_eq!(blocks("json")[0], FILE);
}

#[test]
fn the_commands_print_what_is_shown() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let session = &ground.session;
    let home = session.home().to_str().unwrap();
    let mut file: Value = serde_json::from_str(FILE).unwrap();
    file["hook"]["path"] = json!(session.programs().path("sarus-hook-example"));
    file["hook"]["env"] = json!([format!("LICENCE_FILE={home}/vendor/licence")]);
    session.write(".config/sarus/hooks.d/50-licence.json", file.to_string());
    let hooks = json!({"hooksDir": session.home().join(".config/sarus/hooks.d")});
    session.write(".config/sarus/sarus.json", hooks.to_string());
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    let here = |text: &str| {
        text.replace("debian:12", &ground.image).replace("/opt/vendor", &format!("{home}/vendor"))
    };
    let script: Vec<String> =
        commands.iter().map(|(command, _)| format!("echo '{MARK}'\n{}\n", here(command))).collect();
    let output = session.program(["bash", "-c", &format!("exec 2>&1\n{}", script.concat())]).run();
    let printed: Vec<&str> = output.stdout.split(&format!("{MARK}\n")).skip(1).collect();
    assert_eq!(printed.len(), commands.len(), "{output}");
    for ((command, shown), printed) in commands.iter().zip(printed) {
        assert_eq!(printed, here(shown), "{command}");
    }
}

/// Every template, and every hook file on the pages of hooks.
#[test]
fn every_file_that_is_shown_can_be_used() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = |directory: &str, extension: &str| -> Vec<PathBuf> {
        let entries = fs_err::read_dir(top.join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    };
    let read = |path: PathBuf| fs_err::read_to_string(path).unwrap();
    let templates = files("etc/hooks.d", "json").into_iter().map(read);
    let pages: Vec<String> = files("docs/hooks", "md").into_iter().map(read).collect();
    let shown = pages.iter().flat_map(|page| page.split("```json\n").skip(1));
    let shown = shown.map(|rest| rest.split("```").next().unwrap().to_owned());
    let hooks: Vec<String> =
        templates.chain(shown).filter(|text| text.contains("\"stages\"")).collect();
    assert!(hooks.len() > 4, "{hooks:?}");
    for (number, text) in hooks.iter().enumerate() {
        ground.session.write(&format!(".config/sarus/hooks.d/{number:02}.json"), text);
    }
    let directory = ground.session.home().join(".config/sarus/hooks.d");
    let config = json!({"hooksDir": directory, "containersHooks": false}).to_string();
    ground.session.write(".config/sarus/sarus.json", config);
    let listed = ground.session.sarus(["hooks"]).run();
    assert_eq!(listed.ok().lines().count(), hooks.len() + 1, "{listed}");
}
