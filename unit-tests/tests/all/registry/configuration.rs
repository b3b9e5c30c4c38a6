//! `registries.conf` and its drop-ins: insecure, blocked, rewritten, mirrored, short names.

use sarus_registry::Client;

use super::server::{Contents, Reply, Server};
use super::{User, assert_told, told};

fn sound() -> Server {
    Contents::image("amd64").serve(|_, _| None)
}

#[test]
fn broken_configuration_names_file_and_line() {
    for (text, line, want) in [
        ("\n[[registry]\n", 2, ""),
        ("[[registry]]\nlocation = \"a\"\ninsecure = \"yes\"", 3, ""),
        ("\n[[registry]]\ninsecure = true", 2, "neither `location` nor `prefix`"),
        ("[[registry]]\nprefix = \"a.org\"", 1, "has no `location`"),
        ("[[registry]]\nprefix = \"a.*.org\"\nlocation = \"b\"", 1, "wildcard"),
        (
            "[[registry]]\nlocation = \"a\"\n[[registry]]\nlocation = \"a\"\nblocked = true",
            3,
            "another",
        ),
        (
            "[[registry]]\nprefix = \"b\"\nlocation = \"a\"\ninsecure = true\n\
             [[registry]]\nlocation = \"a\"",
            5,
            "says of `a`",
        ),
        ("unqualified-search-registries = [\"https://a\"]", 1, "no location"),
        ("[aliases]\nx = \"y\"", 2, "alias"),
        ("[aliases]\nx = \"a.org:1/y:2\"", 2, "the alias `x` must name a repository, without tag"),
        ("[registries.search]\nregistries = []", 1, "version 1"),
    ] {
        let user = User::new();
        let file = user.write("etc/containers/registries.conf", text);
        let error = Client::new(user.options()).unwrap_err();
        assert_told(&error, &[&format!("`{}`, line {line}: ", file.display()), want]);
    }
}

/// As the other engines take it, which name them in a log only.
#[test]
fn unknown_keys_are_told_and_passed_over_and_repetitions_are_taken_once() {
    let server = sound();
    let user = User::new();
    let rule = |more: &str| {
        let host = &server.host;
        format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\nblokced = true\n{more}")
    };
    let mirror = format!("[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n", server.host);
    let text = format!("new-key = {{ a = 1 }}\n{}{}", rule(&format!("{mirror}x = 1\n")), rule(""));
    let file = user.write("etc/containers/registries.conf", &text);
    user.resolve(&format!("{}/app", server.host)).unwrap();
    let notices = user.notices();
    for key in ["`new-key`", "`registry.blokced`", "`registry.mirror.x`"] {
        let is_told = |it: &String| it.contains(key) && it.contains(file.to_str().unwrap());
        assert!(notices.iter().any(is_told), "{key}: {notices:?}");
    }
}

#[test]
fn a_registry_that_is_blocked_is_never_contacted() {
    let server = sound();
    let user = User::new();
    let rule = format!("[[registry]]\nprefix = \"{}/secret\"\nblocked = true\n", server.host);
    user.write("etc/containers/registries.conf", &rule);
    let error = user.refused(&format!("{}/secret/app", server.host));
    assert_told(&error, &["is blocked", &format!("{}/secret", server.host), "administrators"]);
    assert!(server.all().is_empty());
}

#[test]
fn a_prefix_is_rewritten_to_its_location() {
    let server = sound();
    let user = User::new();
    let rule = format!(
        "[[registry]]\nprefix = \"old.org/team\"\nlocation = \"{}/new\"\ninsecure = true",
        server.host
    );
    user.write("etc/containers/registries.conf", &rule);
    let found = user.resolve("old.org/team/app").unwrap();
    assert_eq!(server.paths()[0], "GET /v2/new/app/manifests/latest");
    assert_eq!(found.reference.to_string(), "old.org/team/app:latest", "the user's name stays");
}

#[test]
fn mirrors_come_first_and_their_failure_is_told() {
    let broken = Server::start(|_, _| Reply::new(500, ""));
    let (good, origin) = (sound(), Contents::default().serve(|_, _| None));
    let user = User::new();
    let mirror =
        |it: &Server| format!("[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n", it.host);
    let own = format!(
        "[[registry]]\nprefix = \"hub.org\"\nlocation = \"{}\"\ninsecure = true\n",
        origin.host
    );
    user.write(
        "etc/containers/registries.conf",
        &format!("{own}{}{}", mirror(&broken), mirror(&good)),
    );
    user.resolve("hub.org/app").unwrap();
    assert!(origin.all().is_empty());
    assert!(
        user.notices()
            .iter()
            .any(|it| it.contains(&format!("mirror `{}/app` failed", broken.host)))
    );
    user.write("etc/containers/registries.conf", &format!("{own}{}", mirror(&broken)));
    let error = user.refused("hub.org/app");
    assert_told(
        &error,
        &["from any of 2 places", &broken.host, &origin.host, "500", "has no `", "hint: "],
    );
}

#[test]
fn short_names_are_searched_and_aliases_have_one_meaning() {
    let (empty, good) = (Contents::default().serve(|_, _| None), sound());
    let user = User::insecure(&[&empty, &good]);
    let search =
        format!("unqualified-search-registries = [\"{}\", \"{}\"]\n", empty.host, good.host);
    user.write("etc/containers/registries.conf.d/50-search.conf", &search);
    let found = user.resolve("app").unwrap();
    assert_eq!(found.reference.to_string(), format!("{}/app:latest", good.host));
    assert_eq!(empty.paths(), ["GET /v2/app/manifests/latest"]);
    let alias = format!("[aliases]\napp = \"{}/team/one\"\n", good.host);
    user.write("etc/containers/registries.conf.d/60-alias.conf", &alias);
    assert_eq!(
        user.resolve("app").unwrap().reference.to_string(),
        format!("{}/team/one:latest", good.host)
    );
}

#[test]
fn a_short_name_that_another_engine_remembers_counts_before_the_files() {
    let server = sound();
    let user = User::insecure(&[&server]);
    let alias = |name: &str| format!("[aliases]\napp = \"{}/{name}\"\n", server.host);
    user.write("etc/containers/registries.conf.d/60-alias.conf", &alias("file"));
    let found = |user: &User| user.resolve("app").unwrap().reference.repository().to_owned();
    assert_eq!(found(&user), "file");
    // Root's are the system's.
    for folder in ["home/.cache", "var/cache"] {
        let path = format!("{folder}/containers/short-name-aliases.conf");
        user.write(&path, &alias("remembered"));
    }
    assert_eq!(found(&user), "remembered");
}

#[test]
fn a_short_name_is_not_guessed_where_the_configuration_forbids_it() {
    let server = sound();
    let user = User::insecure(&[&server]);
    let text = format!(
        "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"{}\", \"b.org\"]\n",
        server.host
    );
    user.write("etc/containers/registries.conf.d/50.conf", &text);
    let one = format!("`{}/app`", server.host);
    assert_told(&user.refused("app"), &["`app`", &one, "`b.org/app`", "hint: write one"]);
    assert!(server.requests().is_empty());
}

#[test]
fn drop_ins_are_laid_over_in_order_and_a_user_has_a_configuration_of_its_own() {
    let server = sound();
    let name = format!("{}/app", server.host);
    let rule = |insecure: bool| {
        format!("[[registry]]\nlocation = \"{}\"\ninsecure = {insecure}\n", server.host)
    };
    let mut user = User::new();
    user.write("etc/containers/registries.conf", &rule(false));
    user.write("etc/containers/registries.conf.d/20.conf", &rule(true));
    user.write("etc/containers/registries.conf.d/30.bak", &rule(false));
    user.resolve(&name).unwrap();
    user.write("etc/containers/registries.conf.d/30.conf", &rule(false));
    assert_told(&user.refused(&name), &["does not speak HTTPS"]);
    user.write("home/.config/containers/registries.conf", &rule(true));
    user.resolve(&name).unwrap();
    user.set("XDG_CONFIG_HOME", user.path("elsewhere"));
    assert_told(&user.refused(&name), &["does not speak HTTPS"]);
    user.write("elsewhere/containers/registries.conf.d/1.conf", &rule(true));
    user.resolve(&name).unwrap();
    user.set("CONTAINERS_REGISTRIES_CONF", user.write("named.conf", "nonsense"));
    let error = Client::new(user.options()).unwrap_err();
    assert!(told(&error).contains("named.conf`, line 1"), "{}", told(&error));
}

#[test]
fn an_unreadable_configuration_is_told() {
    let user = User::new();
    fs_err::create_dir_all(user.path("etc/containers/registries.conf")).unwrap();
    let error = Client::new(user.options()).unwrap_err();
    assert_told(&error, &["cannot read `", "registries.conf`", "directory"]);
}

#[test]
fn debugging_shows_names_of_variables_but_no_values() {
    let mut user = User::new();
    user.set("HTTPS_PROXY", "http://u:hush@proxy:1");
    let text = format!("{:?}", user.options());
    assert!(text.contains("HTTPS_PROXY") && !text.contains("hush"), "{text}");
}
