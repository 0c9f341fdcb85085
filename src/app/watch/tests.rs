//! The watch over real directories.

use std::fs;
use std::os::unix::fs::symlink;

use futures_util::FutureExt;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// A directory that is watched for `weir.yaml`.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A directory as the kubelet makes it for a `ConfigMap`, with the first content in place.
    fn config_map() -> Self {
        let place = Self::new();
        place.write_version("..v1", "one");
        symlink("..v1", place.path("..data")).unwrap();
        symlink("..data/weir.yaml", place.path("weir.yaml")).unwrap();
        place
    }

    fn write_version(&self, version: &str, text: &str) {
        fs::create_dir(self.path(version)).unwrap();
        self.write(&format!("{version}/weir.yaml"), text);
    }

    /// The swap of the kubelet: all files change at once, by the rename of one link.
    fn swap_to(&self, version: &str, before: &str) {
        symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        fs::remove_dir_all(self.path(before)).unwrap();
    }

    async fn armed(&self) -> Watch {
        let mut watch = watch_of([self.path("weir.yaml")]);
        watch.arm().await;
        watch
    }
}

/// A watch over files as they are now.
fn watch_of(paths: impl IntoIterator<Item = PathBuf>) -> Watch {
    Watch::since(paths.into_iter().map(|path| {
        let content = read(&path);
        (path, content)
    }))
}

/// The next change, told by the kernel: sooner than any look without a notice.
async fn told(watch: &mut Watch) -> Vec<PathBuf> {
    timeout(POLL / 2, watch.changed()).await.expect("the kernel gives notice")
}

/// How many seconds pass until the watch tells of a change, without any notice.
async fn seconds_unnoticed(watch: &mut Watch) -> u64 {
    watch.source = Source::Silent;
    let begun = Instant::now();
    watch.changed().await;
    begun.elapsed().as_secs()
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_told() {
    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = place.armed().await;
    place.write("weir.yaml", "two");
    assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
    place.write("weir.yaml", "three");
    assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
}

#[tokio::test]
async fn a_file_that_is_renamed_into_place_is_told() {
    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = place.armed().await;
    for text in ["two", "three"] {
        place.write(".weir.yaml.swp", text);
        fs::rename(place.path(".weir.yaml.swp"), place.path("weir.yaml")).unwrap();
        assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
    }
}

#[tokio::test]
async fn a_file_that_is_removed_and_written_anew_is_told_once() {
    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = place.armed().await;
    fs::remove_file(place.path("weir.yaml")).unwrap();
    assert_eq!(watch.judge(vec![None]), Vec::<PathBuf>::new(), "it may be about to be written");
    place.write("weir.yaml", "two");
    assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
    assert_eq!(watch.files[0].known, Some(Digest::of(b"two")));
}

#[tokio::test]
async fn a_file_that_appears_is_told() {
    let place = Place::new();
    let mut watch = place.armed().await;
    place.write("other.yaml", "of no interest");
    place.write("weir.yaml", "one");
    assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
}

#[tokio::test]
async fn the_swap_of_a_config_map_is_told_each_time() {
    let place = Place::config_map();
    let mut watch = place.armed().await;
    for (version, before, text) in [("..v2", "..v1", "two"), ("..v3", "..v2", "three")] {
        place.write_version(version, text);
        place.swap_to(version, before);
        assert_eq!(told(&mut watch).await, [place.path("weir.yaml")]);
    }
}

#[tokio::test]
async fn a_link_that_is_made_anew_is_told() {
    let place = Place::new();
    place.write("one.yaml", "one");
    place.write("two.yaml", "two");
    symlink("one.yaml", place.path("weir.yaml")).unwrap();
    let mut watch = place.armed().await;
    fs::remove_file(place.path("weir.yaml")).unwrap();
    symlink("two.yaml", place.path("weir.yaml")).unwrap();
    told(&mut watch).await;
}

#[tokio::test]
async fn what_a_link_in_the_middle_of_the_path_leads_to_is_told() {
    let place = Place::new();
    place.write_version("blue", "one");
    place.write_version("green", "two");
    symlink(place.path("blue"), place.path("current")).unwrap();
    let path = place.path("./blue/../current/weir.yaml");
    let mut watch = watch_of([path.clone()]);
    watch.arm().await;
    symlink("green", place.path("next")).unwrap();
    fs::rename(place.path("next"), place.path("current")).unwrap();
    assert_eq!(told(&mut watch).await, [path]);
}

#[tokio::test]
async fn a_file_whose_directory_is_elsewhere_is_told() {
    // As where a container has one file of the host mounted: it is written there, in another directory.
    let (host, container) = (Place::new(), Place::new());
    host.write("weir.yaml", "one");
    fs::hard_link(host.path("weir.yaml"), container.path("weir.yaml")).unwrap();
    let mut watch = container.armed().await;
    host.write("weir.yaml", "two");
    assert_eq!(told(&mut watch).await, [container.path("weir.yaml")]);
}

#[tokio::test]
async fn of_several_files_those_that_changed_are_told() {
    let place = Place::new();
    let paths = ["a", "b", "c"].map(|name| place.path(name));
    for name in ["a", "b", "c"] {
        place.write(name, "one");
    }
    let mut watch = watch_of(paths.clone());
    watch.arm().await;
    place.write("a", "two");
    place.write("c", "two");
    let mut changed = told(&mut watch).await;
    if changed.len() < 2 {
        changed.extend(told(&mut watch).await);
    }
    assert_eq!(changed, [paths[0].clone(), paths[2].clone()]);
}

#[tokio::test]
async fn what_changed_while_nobody_listened_is_told() {
    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = place.armed().await;
    place.write("weir.yaml", "two");
    watch.arm().await;
    // A caller that leaves takes nothing along, wherever the watch is by then.
    let changed = match watch.changed().now_or_never() {
        Some(changed) => changed,
        None => told(&mut watch).await,
    };
    assert_eq!(changed, [place.path("weir.yaml")]);
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_told() {
    use std::io::Write;

    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = place.armed().await;
    fs::remove_file(place.path("weir.yaml")).unwrap();
    let mut file = fs::File::create(place.path("weir.yaml")).unwrap();
    file.write_all(b"half").unwrap();
    let Source::Kernel(notices) = &mut watch.source else { panic!("{watch:?}") };
    assert_eq!(notices.drain(), HashSet::new());
    file.write_all(b" and half").unwrap();
    drop(file);
    told(&mut watch).await;
    assert_eq!(watch.files[0].known, Some(Digest::of(b"half and half")));
}

#[tokio::test(start_paused = true)]
async fn without_notices_a_content_is_told_when_it_stands_still() {
    let place = Place::new();
    place.write("weir.yaml", "one");
    let mut watch = watch_of([place.path("weir.yaml")]);
    place.write("weir.yaml", "two");
    assert_eq!(seconds_unnoticed(&mut watch).await, POLL.as_secs());
    fs::remove_file(place.path("weir.yaml")).unwrap();
    assert_eq!(seconds_unnoticed(&mut watch).await, POLL.as_secs());
    assert_eq!(watch.files[0].known, None);
}

#[tokio::test(start_paused = true)]
async fn the_same_content_is_no_change() {
    let place = Place::config_map();
    let mut watch = place.armed().await;
    place.write_version("..v2", "one");
    place.swap_to("..v2", "..v1");
    place.write("..v2/weir.yaml", "one");
    timeout(10 * POLL, watch.changed()).await.expect_err("nothing has changed");
}

#[test]
fn a_content_that_moves_on_is_waited_for() {
    let content = |text: &str| Some(Digest::of(text.as_bytes()));
    let mut file = Watched { path: "weir.yaml".into(), known: content("one"), seen: None };
    let begun = Instant::now();
    assert!(!file.takes(content("tw"), false, begun));
    assert!(!file.takes(content("two"), false, begun + POLL), "it has been there for no time");
    assert!(!file.takes(content("two"), false, begun + POLL + POLL / 2));
    assert!(!file.takes(content("one"), true, begun + 2 * POLL), "it is back");
    assert!(!file.takes(content("two"), false, begun + 2 * POLL), "and gone again");
    assert!(file.takes(content("two"), false, begun + 3 * POLL));
    assert!(file.takes(content("three"), true, begun + 3 * POLL), "its writer has finished");
    assert!(!file.takes(None, true, begun + 3 * POLL), "a file that is gone may be about to be written");
}

#[test]
fn pipes_are_not_read() {
    assert!(read(Path::new("/dev/null")).is_none());
    assert!(read(Path::new("/nonexistent")).is_none());
}
