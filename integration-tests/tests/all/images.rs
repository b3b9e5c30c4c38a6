//! `sarus images`, `inspect`, `rmi`, `export`.

use sarus_integration_tests::{Image, Packed, Registry, Session, Tar, Who};
use serde_json::{Value, json};

fn image(content: &str) -> Packed {
    Image::new()
        .layer(&Tar::new().file("content", content))
        .config(json!({"Env": ["A=b"], "Cmd": ["/content"]}))
        .pack()
}

/// A session with the images `one:1` and `two:1`.
fn two_images() -> (Session, Registry, Packed, Packed) {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let (one, two) = (image("1"), image("2"));
    for (name, image) in [("one:1", &one), ("two:1", &two)] {
        let reference = registry.push(name, image);
        session.sarus(["pull", "--quiet", &reference]).run().ok();
    }
    (session, registry, one, two)
}

#[test]
fn a_store_that_nobody_used_is_empty_and_not_made_by_looking() {
    let session = Session::new(Who::User);
    let output = session.sarus(["images"]).run();
    assert_eq!(output.ok().lines().count(), 1, "a heading: {output}");
    assert_eq!(session.sarus(["images", "--format", "json"]).run().ok().trim(), "[]");
    assert!(!session.home().join(".local").exists(), "made by a look");
}

#[test]
fn images_lists_repository_tag_id_created_size_and_server() {
    let (session, registry, one, _) = two_images();
    let output = session.sarus(["images"]).run();
    let lines: Vec<&str> = output.ok().lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    let heading: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(heading, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "SERVER"]);
    let line = lines.iter().find(|line| line.contains("/one ")).unwrap();
    assert!(line.contains(registry.host()), "{line}");

    let output = session.sarus(["images", "--digests"]).run();
    assert!(output.ok().contains(&one.digest()), "{output}");
}

#[test]
fn images_as_json_are_records_for_programs() {
    let (session, registry, one, two) = two_images();
    let output = session.sarus(["images", "--format", "json"]).run();
    let records: Vec<Value> = serde_json::from_str(output.ok()).unwrap();
    assert_eq!(records.len(), 2, "{output}");
    let text = output.ok();
    for part in [registry.host(), &one.digest(), &two.digest(), "2020-09-13"] {
        assert!(text.contains(part), "{part} in {output}");
    }
}

#[test]
fn inspect_shows_the_configuration_of_the_image() {
    let (session, registry, one, _) = two_images();
    let reference = format!("{}/one:1", registry.host());
    let output = session.sarus(["inspect", &reference]).run();
    let records: Vec<Value> = serde_json::from_str(output.ok()).unwrap();
    assert_eq!(records.len(), 1);
    for part in [one.digest().as_str(), "A=b", "/content", &one.layer_digests()[0]] {
        assert!(output.ok().contains(part), "{part} in {output}");
    }
}

#[test]
fn rmi_removes_the_name_and_the_other_image_stays() {
    let (session, registry, ..) = two_images();
    let (one, two) = (format!("{}/one:1", registry.host()), format!("{}/two:1", registry.host()));
    session.sarus(["rmi", &one]).run().ok();
    let output = session.sarus(["images"]).run();
    assert_eq!(output.ok().lines().count(), 2, "{output}");
    session.sarus(["inspect", &two]).run().ok();
    session.sarus(["inspect", &one]).run().explains(125, &[&one]);
    session.sarus(["rmi", &one]).run().explains(125, &[&one]);
    // What there is goes all the same, and all that there is not is told.
    let output = session.sarus(["rmi", &one, &two, "none"]).run();
    assert_eq!(output.stderr.matches("error: there is no image").count(), 2, "{output}");
    assert_eq!((output.code(), session.sarus(["images", "-q"]).run().ok()), (Some(125), ""));
}

#[test]
fn rmi_by_force_deletes_the_files_now() {
    let (session, registry, ..) = two_images();
    for name in ["one:1", "two:1"] {
        let reference = format!("{}/{name}", registry.host());
        session.sarus(["rmi", "--force", &reference]).run().ok();
    }
    let store = session.home().join(".local/share/sarus");
    let found = session.program(["find"]).args([&store]).args(["-name", "*.squashfs"]).run();
    assert_eq!(found.ok(), "");
}

#[test]
fn export_refuses_to_replace_a_file_unless_told() {
    let (session, registry, ..) = two_images();
    let reference = format!("{}/one:1", registry.host());
    session.write("there.squashfs", "precious");
    let export = session.sarus(["export", &reference, "there.squashfs"]).run();
    export.explains(125, &["there.squashfs"]);
    let path = session.home().join("there.squashfs");
    assert_eq!(fs_err::read_to_string(&path).unwrap(), "precious");
    session.sarus(["export", "--force", &reference, "there.squashfs"]).run().ok();
    assert!(fs_err::read(&path).unwrap().starts_with(b"hsqs"));
}

#[test]
fn completion_scripts_and_version_are_printed() {
    let session = Session::new(Who::User);
    for shell in ["bash", "zsh", "fish"] {
        assert!(session.sarus(["completion", shell]).run().ok().contains("sarus"));
    }
    let version = session.sarus(["--version"]).run().ok().to_owned();
    assert!(version.starts_with("sarus "), "{version}");
    assert_eq!(session.sarus(["version"]).run().ok().lines().next(), version.lines().next());
}

#[test]
fn prune_says_what_it_would_free_asks_and_frees_it() {
    let (session, registry, one, _) = two_images();
    let dry = session.sarus(["prune", "--dry-run", "--format", "json"]).run();
    let told: Value = serde_json::from_str(dry.ok()).unwrap();
    let freed = told["freed"].as_array().unwrap();
    let layers: Vec<&str> = freed.iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert!(layers.contains(&one.layer_digests()[0].as_str()), "{dry}");
    assert_eq!((&told["dryRun"], layers.len()), (&json!(true), 2), "{dry}");

    for answer in ["", "n\n"] {
        let output = session.sarus(["prune"]).input(answer).run();
        assert_eq!(output.ok(), "", "nothing is done: {output}");
        assert!(output.stderr.contains("Are you sure you want to continue? [y/N]"), "{output}");
    }
    let output = session.sarus(["prune"]).input("y\n").run();
    assert!(output.ok().contains("\nTotal reclaimed space: "), "{output}");
    let again = session.sarus(["prune", "--force"]).run();
    assert_eq!(again.ok(), "Total reclaimed space: 0B\n");
    assert_eq!(session.sarus(["images", "--quiet"]).run().ok().lines().count(), 2);

    let output = session.sarus(["prune", "--all", "--force", "--format", "json"]).run();
    let told: Value = serde_json::from_str(output.ok()).unwrap();
    assert_eq!(told["later"].as_array().unwrap().len(), 2, "{output}");
    assert!(output.stderr.contains("for jobs that use them"), "{output}");
    assert_eq!(session.sarus(["images", "--quiet"]).run().ok(), "");
    // Named again within the grace period, the image is there without a conversion.
    let reference = format!("{}/one:1", registry.host());
    let output = session.sarus(["pull", &reference]).run();
    assert!(output.stderr.contains("up to date"), "{output}");
}
