//! The FUSE server, asked as the kernel asks: what it tells is what is in the image.

mod kernel;

use std::collections::BTreeSet;
use std::fs::File;

use kernel::{Kernel, attribute, greeting, range, request, u32_at};
use sarus_fuse::Server;
use sarus_fuse::protocol::{IN_HEADER, ROOT, init, opcode};
use sarus_squash::{Image, Kind, ReadError, Settings, Tree, restore_owners};

use super::damage::{small, with_flips};
use super::sample::{COMPRESSIONS, Part, Sample, What, noise, random, settings, torture};

const ENOENT: i32 = 2;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ERANGE: i32 = 34;
const ENOSYS: i32 = 38;
const ENODATA: i32 = 61;
const ESTALE: i32 = 116;

/// The image of a sample, with the owners in it.
fn with_owners(sample: &Sample, settings: &Settings) -> File {
    let (image, written) = sample.write(settings);
    let file = tempfile::tempfile().unwrap();
    restore_owners(&image, &file, &written.ids).unwrap();
    file
}

/// Calls `take` with the kernel's side of a connection to a server for `file`.
fn with_kernel<T>(file: &File, take: impl FnOnce(&mut Kernel<'_>) -> T) -> Result<T, ReadError> {
    let image = Image::open(file)?;
    let server = Server::new(&image, 4096, true);
    Ok(take(&mut Kernel::new(&server)))
}

#[test]
fn what_is_served_is_the_tree() {
    let combinations = COMPRESSIONS.map(|name| (name, 4096)).into_iter().chain([("zstd", 1 << 17)]);
    for (compression, block_size) in combinations {
        let sample = torture(block_size.try_into().unwrap());
        let file = with_owners(&sample, &settings(compression, block_size, 2));
        let found = with_kernel(&file, |kernel| kernel.walk().unwrap()).unwrap();
        let expected = sample.expected();
        assert!(found.keys().eq(expected.keys()), "{compression} {block_size}");
        for (path, found) in &found {
            // Not by assert_eq: contents are long.
            assert!(*found == expected[path], "{} {compression}", path.escape_ascii());
        }
    }
}

#[test]
fn any_range_of_a_file_is_that_range() {
    let mut sample = Sample::new();
    let parts = vec![
        Part::Bytes(noise(10_000, 1)),
        Part::Zeros(70_000),
        Part::Bytes(noise(4096 * 1200 + 77, 2)),
        Part::Zeros(9000),
        Part::Bytes(b"the end".to_vec()),
    ];
    let kind = sample.content(parts);
    sample.add("long", kind);
    let (file, _) = sample.write(&settings("zstd", 4096, 2));
    let expected = sample.expected();
    let What::File(bytes) = &expected[&b"long"[..]].what else { panic!("a file") };
    with_kernel(&file, |kernel| {
        let (node, stat) = kernel.look_up(ROOT, b"long").unwrap();
        assert_eq!(stat.size, bytes.len() as u64);
        let mut state = 5;
        for round in 0..3000 {
            // Backwards over the marks of the list of blocks, too.
            let start = random(&mut state) % (bytes.len() + 5000);
            let size = random(&mut state) % if round % 10 == 0 { 1 << 20 } else { 9000 };
            let want = bytes.get(start..).unwrap_or_default();
            let want = &want[..want.len().min(size)];
            let body = range(start as u64, size.try_into().unwrap());
            assert!(kernel.ask(opcode::READ, node, &body).unwrap() == want, "{start} {size}");
        }
        let beyond = kernel.ask(opcode::READ, node, &range(u64::MAX, u32::MAX));
        assert_eq!(beyond, Ok(Vec::new()));
    })
    .unwrap();
}

#[test]
fn the_kernel_is_told_what_it_need_not_ask() {
    let mut sample = Sample::new();
    sample.file("file", b"x".to_vec());
    let (file, _) = sample.write(&settings("zstd", 1 << 17, 1));
    with_kernel(&file, |kernel| {
        let answer = kernel.ask(opcode::INIT, 0, &greeting(7, 41, u32::MAX)).unwrap();
        assert_eq!(answer.len(), 64);
        assert_eq!((u32_at(&answer, 0), u32_at(&answer, 8)), (7, 128 << 10));
        let flags = u32_at(&answer, 12);
        for flag in [init::NO_OPEN_SUPPORT, init::NO_OPENDIR_SUPPORT, init::PARALLEL_DIROPS] {
            assert_ne!(flags & flag, 0);
        }
        let (node, _) = kernel.look_up(ROOT, b"file").unwrap();
        for code in [opcode::OPEN, opcode::OPENDIR, opcode::ACCESS, opcode::INTERRUPT] {
            assert_eq!(kernel.ask(code, node, &[0; 8]), Err(ENOSYS), "{code}");
        }
        for code in [opcode::GETXATTR, opcode::LISTXATTR] {
            assert_eq!(kernel.ask(code, node, &attribute(9, b"user.a")), Err(ENOSYS), "{code}");
        }
        assert_eq!(kernel.ask(opcode::IOCTL, node, &[0; 32]), Err(ENOTTY));
        assert_eq!(kernel.look_up(ROOT, b"missing"), Err(ENOENT), "to be remembered for ever");

        // A kernel that offers nothing opens files, and keeps their pages.
        kernel.ask(opcode::INIT, 0, &greeting(7, 23, 0)).unwrap();
        for code in [opcode::OPEN, opcode::OPENDIR] {
            let opened = kernel.ask(code, node, &[0; 8]).unwrap();
            assert_eq!((opened.len(), u32_at(&opened, 8)), (16, 0b10_1010));
        }
        assert_eq!(kernel.ask(opcode::INIT, 0, &greeting(7, 22, 0)), Err(71));
        for (unheard, node) in [(opcode::FORGET, node), (opcode::BATCH_FORGET, 0)] {
            assert_eq!(kernel.send(&request(unheard, 9, node, &[0; 16])), None);
        }
    })
    .unwrap();
}

#[test]
fn trusted_attributes_are_listed_where_they_can_be_read() {
    let sample = torture(4096);
    let (file, _) = sample.write(&settings("zstd", 4096, 1));
    let image = Image::open(&file).unwrap();
    for (lists_trusted, want) in [(true, 2), (false, 0)] {
        let server = Server::new(&image, 4096, lists_trusted);
        let mut kernel = Kernel::new(&server);
        let (node, _) = kernel.look_up(ROOT, b"attributes").unwrap();
        let xattrs = kernel.xattrs(node).unwrap();
        let trusted = xattrs.iter().filter(|(name, _)| name.starts_with(b"trusted."));
        assert_eq!(trusted.count(), want);
        let none = kernel.ask(opcode::GETXATTR, node, &attribute(9, b"user.none"));
        assert_eq!(none, Err(ENODATA));
    }
}

#[test]
fn large_directories_are_listed_from_any_place() {
    // The second is above what is kept in memory.
    for (count, length) in [(3000, 12), (36_000, 250)] {
        let mut sample = Sample::new();
        let id = sample.file("file", b"x".to_vec());
        sample.add("d", Kind::Directory(Box::default()));
        let name = |index: usize| format!("{index:0length$}").into_bytes();
        let Kind::Directory(root) = &sample.tree.node(Tree::ROOT).kind else { panic!("root") };
        let directory = root.get(b"d").unwrap();
        let Kind::Directory(names) = &mut sample.tree.node_mut(directory).kind else {
            panic!("a directory")
        };
        (0..count).for_each(|index| names.insert(&name(index), id));
        let (file, _) = sample.write(&settings("zstd", 1 << 17, 1));
        with_kernel(&file, |kernel| {
            let (node, _) = kernel.look_up(ROOT, b"d").unwrap();
            for (plus, size) in [(false, 4096), (true, 1 << 17)] {
                let all = kernel.list(node, size, plus).unwrap();
                assert_eq!(all.len(), count);
                assert!(all.iter().enumerate().all(|(index, entry)| entry.name == name(index)));
                let offsets = all.iter().map(|entry| entry.next).collect::<BTreeSet<_>>();
                assert_eq!(offsets.len(), count, "places differ");
                for at in [1, count / 2, count - 2] {
                    let page = kernel.page(node, all[at].next, 4096, plus).unwrap();
                    assert_eq!(page[0], all[at + 1]);
                }
                let end = all[count - 1].next;
                assert_eq!(kernel.page(node, end, 4096, plus), Ok(Vec::new()));
                assert_eq!(kernel.page(node, u64::MAX, 4096, plus), Ok(Vec::new()));
            }
            assert_eq!(kernel.page(node, 7, 100, true), Err(EINVAL), "no room for one");
            let (found, stat) = kernel.look_up(node, &name(count - 1)).unwrap();
            assert_eq!(
                (found, stat.links as usize),
                (kernel.look_up(ROOT, b"file").unwrap().0, count + 1)
            );
            assert_eq!(kernel.look_up(node, &name(count)), Err(ENOENT));
        })
        .unwrap();
    }
}

#[test]
fn threads_share_blocks_and_get_the_same() {
    let sample = torture(4096);
    let file = with_owners(&sample, &settings("zstd", 4096, 2));
    let image = Image::open(&file).unwrap();
    let server = Server::new(&image, 4096, true);
    let expected = sample.expected();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(Kernel::new(&server).walk().unwrap() == expected));
        }
    });
}

#[test]
fn a_request_of_any_bytes_is_answered_or_passed_over() {
    let sample = torture(4096);
    let (file, _) = sample.write(&settings("zstd", 4096, 1));
    with_kernel(&file, |kernel| {
        let whole = request(opcode::LOOKUP, 4, ROOT, b"name\0");
        for length in 0..whole.len() {
            let answer = kernel.send(&whole[..length]);
            let want = (length >= IN_HEADER).then_some(Err(EINVAL));
            assert_eq!(answer, want, "{length}");
        }
        let long = [vec![b'n'; 30_000], vec![0]].concat();
        assert_eq!(kernel.look_up(ROOT, &long[..30_000]), Err(ENOENT));
        assert_eq!(kernel.look_up(ROOT, b""), Err(ENOENT));
        assert_eq!(kernel.stat(0), Err(ESTALE));
        assert_eq!(kernel.stat(u64::MAX), Err(ESTALE));
        let mut state = 11;
        for round in 0..60_000 {
            let code = u32::try_from(random(&mut state) % 70).unwrap();
            let node = match round % 4 {
                0 => ROOT,
                1 => (random(&mut state) % 4000) as u64,
                2 => (random(&mut state) as u64) << (random(&mut state) % 34),
                _ => u64::MAX - (random(&mut state) % 9) as u64,
            };
            let body = match round % 3 {
                0 => noise(random(&mut state) % 80, round),
                1 => range(random(&mut state) as u64, u32::MAX),
                _ => vec![0xff; random(&mut state) % 80],
            };
            let mut bytes = request(code, round, node, &body);
            if round % 7 == 0 {
                bytes[..4].copy_from_slice(&noise(4, round));
            }
            if let Some(Ok(answer)) = kernel.send(&bytes) {
                assert!(answer.len() <= 1 << 20, "{code}: {}", answer.len());
            }
        }
    })
    .unwrap();
}

#[test]
fn an_altered_image_is_served_without_an_accident() {
    for (compression, rounds) in [("none", 4000), ("zstd", 1000), ("gzip", 500), ("lz4", 500)] {
        let good = small(compression);
        let mut outcomes = [0, 0];
        with_flips(&good, rounds, |_round, file| {
            let is_whole = matches!(with_kernel(file, tour), Ok(Ok(())));
            outcomes[usize::from(is_whole)] += 1;
        });
        assert!(outcomes.iter().all(|&count| count > 5), "{compression}: {outcomes:?}");
    }
}

/// Asks everything about every entry once, and goes on after errors; returns the last one.
fn tour(kernel: &mut Kernel<'_>) -> Result<(), i32> {
    let mut result = Ok(());
    let mut seen = BTreeSet::new();
    let mut pending = vec![ROOT];
    while let Some(node) = pending.pop() {
        if !seen.insert(node) {
            continue;
        }
        for plus in [true, false] {
            match kernel.page(node, 0, 1 << 17, plus) {
                Ok(page) => {
                    pending.extend(page.iter().filter_map(|entry| Some(entry.known.as_ref()?.0)));
                    for entry in page.iter().filter(|entry| entry.known.is_none()).skip(2) {
                        pending.extend(kernel.look_up(node, &entry.name).map(|(node, _)| node));
                    }
                }
                // Everything that is no directory.
                Err(20) => {}
                Err(error) => result = Err(error),
            }
        }
        let stat = kernel.stat(node);
        let told = stat.and_then(|stat| kernel.what(node, &stat)).and(kernel.xattrs(node));
        if let Err(error) = told {
            result = Err(error);
        }
    }
    let _statistics = kernel.ask(opcode::STATFS, ROOT, b"");
    result
}
