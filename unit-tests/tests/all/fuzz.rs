//! The fuzz targets over their corpus, and over mutations of it: what runs everywhere and always
//! the same. `ci/fuzz` runs them for as long as is asked for.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a library to the programs of libFuzzer")]
mod targets;

use std::path::PathBuf;

/// Mutations of each input, and bytes of all inputs of a target together: about a second's work.
const ROUNDS: usize = 60;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = fs_err::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs_err::read(path).unwrap())).collect()
}

/// A small generator (Knuth's constants), so that failures repeat.
fn random(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap() % below.max(1)
}

/// Changes, cuts, doubles or crosses inputs, as fuzzers do.
fn mutate(input: &mut Vec<u8>, other: &[u8], state: &mut u64) {
    for _ in 0..=random(state, 4) {
        let at = random(state, input.len());
        let byte = random(state, 256).to_le_bytes()[0];
        match random(state, 7) {
            0 => input.truncate(at),
            1 => input.insert(at.min(input.len()), byte),
            2 => {
                let from = random(state, other.len());
                let until = (from + 1 + random(state, 64)).min(other.len());
                input.splice(at..at, other[from..until].iter().copied());
            }
            3 if !input.is_empty() => input[at] ^= 1 << random(state, 8),
            4 if input.len() > 8 => {
                let end = (at + 4).min(input.len());
                let fill = [0, 0xff, 0x7f, 0x80][random(state, 4)];
                input[at..end].fill(fill);
            }
            5 if !input.is_empty() => {
                let end = (at + 1 + random(state, 32)).min(input.len());
                input.drain(at..end);
            }
            _ if !input.is_empty() => input[at] = byte,
            _ => {}
        }
    }
}

fn run(target: &str) {
    let (_, check) = targets::TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let corpus = corpus(target);
    assert!(corpus.len() > 4, "{target} has a corpus");
    let mut state = 1;
    let mut count = 0;
    for (path, input) in &corpus {
        let note = Note(path);
        check(input);
        for _ in 0..ROUNDS {
            let mut mutated = input.clone();
            let (_, other) = &corpus[random(&mut state, corpus.len())];
            mutate(&mut mutated, other, &mut state);
            check(&mutated);
            count += 1;
        }
        drop(note);
    }
    assert_eq!(count, corpus.len() * ROUNDS);
}

/// Says which input a panic came from.
struct Note<'a>(&'a PathBuf);

impl Drop for Note<'_> {
    #[expect(clippy::print_stderr, reason = "the panic itself says what and not which")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {} or a mutation of it", self.0.display());
        }
    }
}

macro_rules! bears_anything {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            run(stringify!($target));
        }
    )*};
}

mod any_input_is_borne_by {
    use super::run;

    bears_anything!(
        reference manifest tar layer squashfs config hook seccomp registries request archive policy
    );
}

#[test]
fn every_target_has_a_program_and_a_test() {
    let entries = fs_err::read_dir(format!("{}/fuzz/bin", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut programs: Vec<String> = entries
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    programs.sort();
    let mut names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(names, programs);
    assert_eq!(names.len(), 12, "add the target to the tests above");
}
