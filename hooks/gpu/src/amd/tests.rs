//! Selection and plans from nodes in memory; the text of the kernel's files.

use super::*;

fn gpu(uuid: Option<&str>, number: u32) -> Gpu {
    Gpu {
        uuid: uuid.map(str::to_owned),
        render: format!("/dev/dri/renderD{}", 128 + number).into(),
        card: Some(format!("/dev/dri/card{number}").into()),
        access: Access { gid: 109, is_everyones: false },
    }
}

fn gpus() -> Vec<Gpu> {
    vec![gpu(Some("GPU-18f37bff9ca8c90b"), 0), gpu(None, 1), gpu(Some("GPU-00000000000000aa"), 2)]
}

#[test]
fn gpus_are_found_by_index_and_uuid_and_renumbered() {
    let gpus = gpus();
    let cases: [(Option<&str>, &[usize], Option<&str>); 9] = [
        (None, &[0, 1, 2], None),
        (Some(""), &[], None),
        (Some("-1"), &[], None),
        (Some("0,1"), &[0, 1], None),
        (Some("2"), &[2], Some("0")),
        (Some("2,1"), &[2, 1], Some("1,0")),
        (Some("1,-1,0"), &[1], None),
        (Some("GPU-18F37BFF9CA8C90B"), &[0], None),
        (Some("1,GPU-00000000000000aa"), &[1, 2], None),
    ];
    for (wanted, places, inside) in cases {
        let selected = select(wanted, &gpus).unwrap();
        let found: Vec<usize> = selected.iter().map(|(index, _)| *index).collect();
        assert_eq!(found, places, "{wanted:?}");
        let renumbered = wanted.and_then(|list| renumbered(list, &selected));
        assert_eq!(renumbered.as_deref(), inside, "{wanted:?}");
    }
    for id in ["3", "GPU-bb", "x"] {
        let error = select(Some(id), &gpus).unwrap_err().to_string();
        assert!(error.contains(&format!("no AMD GPU `{id}`")), "{error}");
        assert!(error.contains("there is GPU 1: no UUID, /dev/dri/renderD129"), "{error}");
    }
}

#[test]
fn a_gpu_comes_with_the_common_node_its_card_and_its_render_node() {
    let host = HostGpus { gpus: gpus(), ..HostGpus::default() };
    let mut plan = Plan::default();
    steps(Path::new("/"), &host, &select(Some("1"), &host.gpus).unwrap(), &mut plan);
    let shown: Vec<String> = plan.steps.iter().map(|planned| planned.step.to_string()).collect();
    let want = [
        "show device `/dev/kfd` (rw)",
        "show device `/dev/dri/card1` (rw)",
        "show device `/dev/dri/renderD129` (rw)",
    ];
    assert_eq!(shown, want);
}

#[test]
fn a_group_is_given_only_where_the_site_says_so() {
    let accesses = [
        Access { gid: 109, is_everyones: false },
        Access { gid: 44, is_everyones: true },
        Access { gid: 5, is_everyones: false },
        Access { gid: 0, is_everyones: false },
    ];
    let person = Person { uid: 1000, gid: 1000, groups: vec![5] };
    for (may_add, steps) in [(true, 1), (false, 0)] {
        let mut plan = Plan::default();
        groups(accesses.into_iter(), &person, may_add, &mut plan);
        assert_eq!((plan.steps.len(), plan.notes.len()), (steps, 1 - steps), "{plan:?}");
        assert!(format!("{plan:?}").contains("109"), "{plan:?}");
    }
}

#[test]
fn numbers_are_found_in_the_kernels_text() {
    let text = "cpu_cores_count 0\nsimd_count 440\ndrm_render_minor 128\nunique_id 18\n";
    assert_eq!(property(text, "drm_render_minor"), Some(128));
    assert_eq!(property(text, "unique_id"), Some(18));
    assert_eq!(property(text, "unique"), None);
}

#[test]
fn without_the_common_node_there_is_no_gpu() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(look(folder.path()), None);
}
