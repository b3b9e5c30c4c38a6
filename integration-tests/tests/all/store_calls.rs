//! What looking into the store costs, in system calls: that is what a shared file system feels.

use std::path::Path;

use sarus_integration_tests::{Image, Registry, Runtime, Session, Who};

use crate::Ground;

/// Runs a command under `strace`; the lines of its trace that have to do with the store.
fn trace(session: &Session, words: &[&str], calls: &str) -> Vec<String> {
    let trace = session.home().join("trace");
    let strace = ["strace", "-f", "-qq", "-y", "-s", "4096", "-e", calls, "-o"];
    session.sarus(words).under(strace).under([&trace]).run().ok();
    let store = store(session);
    let text = fs_err::read_to_string(trace).unwrap();
    let of_store = text.lines().filter(|line| line.contains(&store));
    of_store.map(str::to_owned).collect()
}

fn store(session: &Session) -> String {
    session.home().join(".local/share/sarus").to_str().unwrap().to_owned()
}

#[test]
fn a_run_of_a_user_or_root_opens_a_handful_of_files_of_the_store_and_lists_and_writes_nothing() {
    for who in [Who::User, Who::Root] {
        let ground = Ground::with(who, Runtime::Crun, &Image::busybox().pack());
        let calls = "trace=open,openat,openat2,getdents64,mkdir,mkdirat,rename,renameat,renameat2,\
                     unlink,unlinkat,rmdir,creat";
        let traced = trace(&ground.session, &["run", &ground.image, "true"], calls);
        let of = |name: &str| traced.iter().filter(|line| line.contains(name)).count();
        let opened = of("open");
        assert!((2..=6).contains(&opened), "{who:?}: {opened}\n{}", traced.join("\n"));
        assert_eq!(opened, traced.len(), "{who:?}: only opened:\n{}", traced.join("\n"));
        assert!(!traced.iter().any(|line| line.contains("O_CREAT")), "{}", traced.join("\n"));
        let is_directory = |line: &&String| line.contains("O_DIRECTORY");
        assert_eq!(traced.iter().find(is_directory), None, "{who:?}");
    }
}

/// Copies of one image under other digests, each with a name.
fn multiply(session: &Session, count: u32) {
    let store = store(session);
    let store = Path::new(&store);
    let first =
        |directory: &Path| fs_err::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    let image = first(&store.join("images/v1"));
    let digest = image.file_name().unwrap().to_str().unwrap().replace("sha256-", "sha256:");
    let name = first(&store.join("names"));
    for number in 0..count {
        let other = format!("{number:064x}");
        let copy = store.join(format!("images/v1/sha256-{other}"));
        fs_err::create_dir(&copy).unwrap();
        fs_err::copy(image.join("image.squashfs"), copy.join("image.squashfs")).unwrap();
        for (from, to) in [
            (image.join("image.json"), copy.join("image.json")),
            (name.clone(), store.join(format!("names/copy+{number}=1,linux-amd64"))),
        ] {
            let text = fs_err::read_to_string(from).unwrap();
            let text = text.replace(&digest, &format!("sha256:{other}"));
            fs_err::write(to, text.replace("/app:1", &format!("/copy{number}:1"))).unwrap();
        }
    }
}

#[test]
fn listing_images_takes_a_fixed_number_of_calls_for_each() {
    let registry = Registry::start();
    let session = Session::new(Who::Root);
    session.trust(&[registry.host()]);
    let image = registry.push("app:1", &Image::busybox().pack());
    session.sarus(["pull", "--quiet", &image]).run().ok();
    let calls = |session: &Session| trace(session, &["images"], "trace=all").len();
    let one = calls(&session);
    multiply(&session, 50);
    let listed = session.sarus(["images", "--quiet"]).run();
    assert_eq!(listed.ok().lines().count(), 51);
    let each = (calls(&session) - one) / 50;
    // Five, and where closing is watched, in debug builds, one more.
    assert!(each <= 6, "{each} calls for each image");
    let counted = trace(&session, &["images"], "trace=openat").len();
    assert!(counted <= 12 + 51, "{counted} files opened for 51 images");
}
