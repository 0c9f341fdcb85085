//! Directories of other releases. `tests/stores/` has those that earlier releases have left.

use super::*;
use crate::store::layout::LAYOUT_VERSION;
use crate::store::version;

/// A copy of the directory that the release of this layout has left.
fn saved(version: u32) -> TempDir {
    let copy = TempDir::new().unwrap();
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stores/layout-{version}"));
    for file in files_below(&saved) {
        let to = copy.path().join(file.strip_prefix(&saved).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
    copy
}

fn check(root: &TempDir, known: u32, may_write: bool) -> Result<(), OpenError> {
    std::fs::create_dir_all(root.path().join("tmp")).unwrap();
    version::check(&Layout::new(root.path()), &DiskFiles, known, may_write)
}

fn marked(root: &TempDir) -> String {
    std::fs::read_to_string(root.path().join("layout")).unwrap()
}

#[test]
fn the_next_release_takes_a_directory_over_and_this_one_refuses_it_by_name_from_then_on() {
    let root = saved(LAYOUT_VERSION);
    let (own, next) = (LAYOUT_VERSION, LAYOUT_VERSION + 1);
    check(&root, own, true).unwrap();
    assert_eq!(marked(&root), format!("{own}\n"), "it is this release's");
    check(&root, next, false).unwrap();
    assert_eq!(marked(&root), format!("{own}\n"), "who may not write reads it as it is");
    check(&root, next, true).unwrap();
    assert_eq!(marked(&root), format!("{next}\n"));
    let refused = check(&root, own, true).unwrap_err().to_string();
    assert!(refused.contains(&format!("layout {next}")) && refused.contains("upgrade weir"), "{refused}");
    let outdated = check(&root, next + 2, true).unwrap_err().to_string();
    assert!(outdated.contains(&format!("layout {next}")) && outdated.contains("release before"), "{outdated}");
    assert_eq!(marked(&root), format!("{next}\n"), "who refuses it leaves it alone");
}

#[test]
fn a_crash_while_a_directory_is_taken_over_leaves_one_that_both_releases_know() {
    for fails in ["create", "rename"] {
        let root = saved(LAYOUT_VERSION);
        std::fs::create_dir_all(root.path().join("tmp")).unwrap();
        let witness = Witness { fails: Some(fails), ..Witness::default() };
        let failed = version::check(&Layout::new(root.path()), &witness, LAYOUT_VERSION + 1, true);
        assert!(failed.is_err(), "{fails}");
        check(&root, LAYOUT_VERSION, true).unwrap();
        check(&root, LAYOUT_VERSION + 1, true).unwrap();
        assert_eq!(marked(&root), format!("{}\n", LAYOUT_VERSION + 1), "{fails}");
    }
}

#[tokio::test]
async fn what_an_earlier_release_has_left_is_all_there() {
    for version in 1..=LAYOUT_VERSION {
        let root = saved(version);
        let metrics = Metrics::new().unwrap();
        let store = try_open(root.path(), DiskFiles, &metrics).await.unwrap();
        settle(&store).await;
        assert_eq!(marked(&root), format!("{LAYOUT_VERSION}\n"));
        let (registry, repository) = ("up.test".parse().unwrap(), "library/demo".parse().unwrap());
        let tag = store.tags().read(&registry, &repository, &"v1".parse().unwrap()).await.unwrap();
        let linked = store.links().of(&registry, &repository).await.unwrap();
        assert!(linked.len() == 4 && linked.contains(&tag.digest), "{linked:?}");
        for digest in &linked {
            let blob = store.open_blob(digest).await.unwrap();
            assert_eq!(store.verify_now(digest, &blob).await, Verdict::Sound);
        }
        assert_eq!(metrics.store.objects.get(), 4, "layout {version}");
    }
}
