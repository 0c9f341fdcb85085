//! What is known of pinned images, and what follows from it. No I/O and no clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::board::Kept;
use super::report::{ImageReport, PinReport, PinState};
use crate::oci::{Closure, Digest, ImageRef, Reference};
use crate::pull::collect::Amount;
use crate::store::pins::fitting;
use crate::store::{PinName, PinRecord, PinRoots, Root};

/// An image of a pin.
pub(super) type Key = (PinName, ImageRef);

/// An image that is kept, or to be.
#[derive(Debug)]
struct Image {
    state: PinState,
    note: Option<String>,
    amount: Amount,
    /// What was whole, and everything of it.
    held: Option<(Root, Arc<Closure>)>,
    /// What is to take its place.
    next: Option<Arc<Closure>>,
    /// It is to be looked at now.
    now: Arc<Notify>,
    /// How often that was asked for.
    turn: u64,
    /// Whether it could be read what was whole before.
    is_recalled: bool,
}

impl Image {
    fn begin_anew(&mut self) {
        (self.state, self.next) = (PinState::Waiting, None);
        self.turn += 1;
        self.now.notify_one();
    }
}

/// All pins.
#[derive(Debug, Default)]
pub(super) struct Pinned(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<PinName, PinRecord>,
    images: HashMap<Key, Image>,
    /// What has been written of what came of pins.
    noted: HashMap<PinName, PinRoots>,
    /// What stays besides: the content of pins whose records could never be read.
    spared: HashSet<Digest>,
    /// What cannot be read, in words.
    unread: Option<String>,
    /// For how many bytes the consequences were last drawn; `None` if something has changed since.
    settled: Option<u64>,
}

/// What has changed about an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// What is said about it.
    Words,
    /// What there is to keep, or whether it is.
    Content,
}

/// What follows from all that is known.
#[derive(Debug)]
pub(super) struct Consequences {
    /// What is not to be evicted.
    pub(super) protected: HashSet<Digest>,
    pub(super) board: Kept,
}

impl Pinned {
    /// Exactly these pins there are. Returns the images that were not known, with what is to be known of each.
    pub(super) fn take_over(&self, records: BTreeMap<PinName, PinRecord>) -> Vec<(Key, Arc<Notify>)> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let is_there = |(name, image): &Key| records.get(name).is_some_and(|record| record.images.contains(image));
        let known = inner.images.len();
        inner.images.retain(|key, _| is_there(key));
        if inner.images.len() != known || inner.records != records {
            inner.settled = None;
        }
        for (name, record) in &records {
            if inner.records.get(name).is_some_and(|before| before.platforms != record.platforms) {
                for image in &record.images {
                    if let Some(image) = inner.images.get_mut(&(name.clone(), image.clone())) {
                        image.begin_anew();
                    }
                }
            }
        }
        inner.noted.retain(|name, _| records.contains_key(name));
        inner.records = records;
        let all = inner
            .records
            .iter()
            .flat_map(|(name, record)| record.images.iter().map(move |image| (name.clone(), image.clone())));
        let new: Vec<Key> = all.filter(|key| !inner.images.contains_key(key)).collect();
        let new = new.into_iter().filter_map(|key| {
            let now = Arc::new(Notify::new());
            let image = Image {
                state: PinState::Waiting,
                note: None,
                amount: Amount::default(),
                held: None,
                next: None,
                now: Arc::clone(&now),
                turn: 0,
                is_recalled: true,
            };
            inner.images.insert(key.clone(), image).is_none().then_some((key, now))
        });
        new.collect()
    }

    /// What is wanted by a name.
    pub(super) fn record(&self, name: &PinName) -> Option<PinRecord> {
        self.0.lock().records.get(name).cloned()
    }

    /// `record` is what is wanted by that name from now on, and its images are to be looked at now.
    pub(super) fn put(&self, name: &PinName, record: PinRecord) {
        let mut inner = self.0.lock();
        for ((of, _), image) in &mut inner.images {
            if of == name {
                image.begin_anew();
            }
        }
        inner.records.insert(name.clone(), record);
        inner.settled = None;
    }

    /// There is no pin of this name any more, and nothing of it on record.
    pub(super) fn forget(&self, name: &PinName) {
        let mut inner = self.0.lock();
        inner.images.retain(|(of, _), _| of != name);
        inner.records.remove(name);
        inner.noted.remove(name);
        inner.settled = None;
    }

    /// Which look at an image is the latest that was asked for.
    pub(super) fn turn(&self, key: &Key) -> u64 {
        self.0.lock().images.get(key).map_or(0, |image| image.turn)
    }

    /// What was whole before.
    pub(super) fn held(&self, key: &Key) -> Option<(Root, Arc<Closure>)> {
        self.0.lock().images.get(key)?.held.clone()
    }

    /// `root` and `closure` are what is here of an image, from before or since now.
    pub(super) fn hold(&self, key: &Key, root: Root, closure: Arc<Closure>) {
        self.change_image(key, |image| {
            image.held = Some((root, closure));
            image.next = None;
            Changed::Content
        });
    }

    /// `root` and `closure` are what was here of an image before, unless more is known by now.
    pub(super) fn recall(&self, key: &Key, root: Root, closure: Arc<Closure>) {
        self.change_image(key, |image| {
            image.held.get_or_insert((root, closure));
            Changed::Content
        });
    }

    /// Whether it could be read what was whole of an image before.
    pub(super) fn set_recalled(&self, key: &Key, is_recalled: bool) {
        self.change_image(key, |image| {
            image.is_recalled = is_recalled;
            Changed::Words
        });
    }

    /// The images of which that could not be read.
    pub(super) fn not_recalled(&self) -> Vec<Key> {
        let inner = self.0.lock();
        let missing = inner.images.iter().filter(|(_, image)| !image.is_recalled);
        missing.map(|(key, _)| key.clone()).collect()
    }

    /// Exactly this stays, besides what is known of pins.
    pub(super) fn spare(&self, content: HashSet<Digest>) {
        let mut inner = self.0.lock();
        if inner.spared != content {
            (inner.spared, inner.settled) = (content, None);
        }
    }

    /// What of the records of pins cannot be read, in words.
    pub(super) fn cannot_read(&self, what: Option<String>) {
        self.0.lock().unread = what;
    }

    pub(super) fn unread(&self) -> Option<String> {
        self.0.lock().unread.clone()
    }

    /// `next` is to take the place of what was whole. `None`: it is not.
    pub(super) fn plan(&self, key: &Key, next: Option<Arc<Closure>>) {
        self.change_image(key, |image| {
            image.next = next;
            Changed::Content
        });
    }

    /// What a look has found out. What an earlier one than was asked for since found out counts for nothing.
    pub(super) fn set_state(&self, key: &Key, turn: u64, state: PinState, note: Option<String>) {
        self.change_image(key, |image| {
            if image.turn != turn {
                return Changed::Words;
            }
            let before = std::mem::replace(&mut image.state, state);
            image.note = note;
            if before.as_str() == image.state.as_str() { Changed::Words } else { Changed::Content }
        });
    }

    pub(super) fn progress(&self, key: &Key, amount: Amount) {
        self.change_image(key, |image| {
            image.amount = amount;
            Changed::Words
        });
    }

    fn change_image(&self, key: &Key, change: impl FnOnce(&mut Image) -> Changed) {
        let mut inner = self.0.lock();
        if let Some(image) = inner.images.get_mut(key)
            && change(image) == Changed::Content
        {
            inner.settled = None;
        }
    }

    /// What came of a pin, for the record. `None` if it is on record, and while the record may know more.
    pub(super) fn to_note(&self, name: &PinName) -> Option<PinRoots> {
        let inner = self.0.lock();
        if !inner.records.contains_key(name) {
            return None;
        }
        let images: Vec<_> = inner.images.iter().filter(|((of, _), _)| of == name).collect();
        if images.iter().any(|(_, image)| image.held.is_none() && !image.is_recalled) {
            return None;
        }
        let held = images.iter().filter_map(|((_, image), kept)| Some((image.clone(), kept.held.clone()?.0)));
        let roots = PinRoots { roots: held.collect() };
        let is_noted = inner.noted.get(name).map_or(roots.roots.is_empty(), |noted| *noted == roots);
        (!is_noted).then_some(roots)
    }

    /// That is on record now.
    pub(super) fn has_noted(&self, name: &PinName, roots: PinRoots) {
        self.0.lock().noted.insert(name.clone(), roots);
    }

    /// All pins, the oldest first.
    pub(super) fn reports(&self) -> Vec<PinReport> {
        let inner = self.0.lock();
        let report = |(name, record): (&PinName, &PinRecord)| PinReport {
            name: name.clone(),
            record: record.clone(),
            images: record.images.iter().filter_map(|image| inner.report((name.clone(), image.clone()))).collect(),
        };
        let mut reports: Vec<_> = inner.records.iter().map(report).collect();
        reports.sort_by_key(|report| report.record.since);
        reports
    }

    /// How many images there are in each of the states of [`PinState::WORDS`].
    pub(super) fn counts(&self) -> [i64; PinState::WORDS.len()] {
        let inner = self.0.lock();
        let mut counts = [0; PinState::WORDS.len()];
        for image in inner.images.values() {
            if let Some(place) = PinState::WORDS.iter().position(|word| *word == image.state.as_str()) {
                counts[place] += 1;
            }
        }
        counts
    }

    /// How many images there is no room for, and one of them.
    pub(super) fn not_kept(&self) -> Option<(usize, ImageRef)> {
        let inner = self.0.lock();
        let is_not_kept = |(_, image): &(&Key, &Image)| matches!(image.state, PinState::NotKept(_));
        let mut not_kept = inner.images.iter().filter(is_not_kept).map(|((_, image), _)| image);
        let first = not_kept.next()?.clone();
        Some((1 + not_kept.count(), first))
    }

    /// One image of a pin.
    pub(super) fn report(&self, key: &Key) -> Option<ImageReport> {
        self.0.lock().report(key.clone())
    }

    /// What follows from all that is known, where there are `room` bytes for pins by this `setting`: those not kept are told
    /// so. `None` if that is what followed before.
    pub(super) fn settle(&self, (room, setting): (u64, &'static str)) -> Option<Consequences> {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        if inner.settled.replace(room) == Some(room) {
            return None;
        }
        let mut order: Vec<(u64, &Key)> =
            inner.images.keys().filter_map(|key| Some((inner.records.get(&key.0)?.since, key))).collect();
        order.sort_unstable();
        // First all that was whole, so that nothing of it makes way for what never was.
        let held = order.iter().filter_map(|(_, key)| Some(((*key, false), &inner.images[*key].held.as_ref()?.1)));
        let next = order.iter().filter_map(|(_, key)| Some(((*key, true), inner.images[*key].next.as_ref()?)));
        let wanted = held.chain(next).map(|(key, closure)| (key, closure.content()));
        let (fit, mut protected) = fitting(wanted, room);
        protected.extend(&inner.spared);
        let fit: HashSet<(Key, bool)> = fit.into_iter().map(|(key, is_next)| (key.clone(), is_next)).collect();
        let mut board = Kept::default();
        for (key, image) in &mut inner.images {
            if let Some((root, _)) = &image.held {
                let (registry, repository) = (&key.1.registry, &key.1.repository);
                if let Reference::Tag(tag) = key.1.reference() {
                    board.tags.insert((registry.clone(), repository.clone(), tag), root.digest);
                }
                let lists = root.referrers.iter();
                let lists = lists.map(|(subject, list)| ((registry.clone(), repository.clone(), *subject), *list));
                board.referrers.extend(lists);
            }
            let is_left_out = |is_next| !fit.contains(&(key.clone(), is_next));
            if (image.next.is_some() && is_left_out(true)) || (image.held.is_some() && is_left_out(false)) {
                image.next = None;
                let reason = format!("Not kept, store full: pins need more than `{setting}` has for them");
                image.state = PinState::NotKept(reason);
            }
        }
        Some(Consequences { protected, board })
    }
}

impl Inner {
    fn report(&self, (name, image): Key) -> Option<ImageReport> {
        let key = (name, image);
        let found = self.images.get(&key)?;
        Some(ImageReport {
            image: key.1,
            state: found.state.clone(),
            kept: found.held.as_ref().map(|(root, _)| root.digest),
            amount: found.amount,
            note: found.note.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Manifest;

    fn key(name: &str) -> Key {
        (name.parse().unwrap(), format!("reg.test/{name}:1").parse().unwrap())
    }

    fn record(since: u64, name: &str) -> (PinName, PinRecord) {
        let (name, image) = key(name);
        (name, PinRecord { reason: None, since, images: vec![image], platforms: Vec::new() })
    }

    /// An image with one blob of this size.
    fn closure(name: &str, size: u64) -> Arc<Closure> {
        let blob = serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": Digest::of(name.as_bytes()), "size": size,
        });
        let body = serde_json::json!({ "schemaVersion": 2, "config": blob, "layers": [] }).to_string();
        let mut closure = Closure::new([Digest::of(body.as_bytes())], &[]);
        let pending = closure.next_manifest().unwrap();
        closure.learn(pending, 0, &Manifest::parse(None, body.as_bytes()).unwrap());
        Arc::new(closure)
    }

    fn root(name: &str) -> Root {
        let digest = Digest::of(name.as_bytes());
        Root { digest, beside: Vec::new(), referrers: BTreeMap::new(), whole_at: 0 }
    }

    fn state(pinned: &Pinned, name: &str) -> PinState {
        pinned.report(&key(name)).unwrap().state
    }

    fn settled(pinned: &Pinned, room: u64) -> Option<Consequences> {
        pinned.settle((room, "store.max_size"))
    }

    #[test]
    fn what_was_whole_stays_before_what_is_to_come_and_the_older_before_the_younger() {
        let pinned = Pinned::default();
        assert_eq!(pinned.take_over(BTreeMap::from([record(2, "young"), record(1, "old")])).len(), 2);
        pinned.hold(&key("young"), root("young"), closure("young", 50));
        pinned.plan(&key("old"), Some(closure("old", 60)));
        let Consequences { protected, board } = settled(&pinned, 100).unwrap();
        assert_eq!(protected.len(), 2, "the manifest and the blob of the one that was whole");
        assert!(matches!(state(&pinned, "old"), PinState::NotKept(_)), "{:?}", state(&pinned, "old"));
        assert_eq!(board.tags.values().collect::<Vec<_>>(), [&root("young").digest]);
        pinned.plan(&key("old"), Some(closure("old", 50)));
        pinned.set_state(&key("old"), 0, PinState::Fetching, None);
        assert_eq!(settled(&pinned, 100).unwrap().protected.len(), 4);
        assert!(settled(&pinned, 100).is_none(), "nothing has changed");
        assert_eq!(state(&pinned, "old"), PinState::Fetching);
        pinned.hold(&key("old"), root("old"), closure("old", 50));
        assert_eq!(settled(&pinned, 50).unwrap().protected.len(), 2);
        assert!(matches!(state(&pinned, "young"), PinState::NotKept(_)), "who came first is kept");
    }

    #[test]
    fn what_is_not_pinned_any_more_is_forgotten() {
        let pinned = Pinned::default();
        pinned.take_over(BTreeMap::from([record(1, "a"), record(1, "b")]));
        pinned.hold(&key("a"), root("a"), closure("a", 1));
        assert!(pinned.take_over(BTreeMap::from([record(1, "b")])).is_empty(), "what is known is not new");
        assert!(pinned.report(&key("a")).is_none() && settled(&pinned, u64::MAX).unwrap().protected.is_empty());
        assert_eq!(pinned.to_note(&key("a").0), None);
    }

    #[test]
    fn what_is_let_go_of_is_not_written_down_by_a_look_under_way() {
        let pinned = Pinned::default();
        pinned.take_over(BTreeMap::from([record(1, "a")]));
        let name = key("a").0;
        pinned.forget(&name);
        pinned.hold(&key("a"), root("a"), closure("a", 1));
        assert_eq!(pinned.to_note(&name), None);
        assert_eq!(pinned.take_over(BTreeMap::from([record(2, "a")])).len(), 1, "pinned anew, it is a new one");
    }

    #[test]
    fn what_could_not_be_read_is_neither_forgotten_nor_written_over() {
        let pinned = Pinned::default();
        pinned.take_over(BTreeMap::from([record(1, "a")]));
        let name = key("a").0;
        pinned.set_recalled(&key("a"), false);
        assert_eq!((pinned.not_recalled(), pinned.to_note(&name)), (vec![key("a")], None));
        pinned.hold(&key("a"), root("new"), closure("new", 1));
        pinned.recall(&key("a"), root("old"), closure("old", 1));
        let roots = pinned.to_note(&name).unwrap();
        assert_eq!(roots.roots[&key("a").1], root("new"), "what is known by now is not taken back");
        assert!(pinned.to_note(&name).is_some(), "not before it is written");
        pinned.has_noted(&name, roots);
        assert_eq!(pinned.to_note(&name), None);
        let spared = Digest::of(b"spared");
        pinned.spare(HashSet::from([spared]));
        assert!(settled(&pinned, u64::MAX).unwrap().protected.contains(&spared));
        pinned.spare(HashSet::new());
        assert!(!settled(&pinned, u64::MAX).unwrap().protected.contains(&spared));
    }

    #[test]
    fn an_earlier_look_than_was_asked_for_settles_nothing() {
        let pinned = Pinned::default();
        let (name, asked) = record(1, "a");
        pinned.take_over(BTreeMap::from([(name.clone(), asked.clone())]));
        let turn = pinned.turn(&key("a"));
        pinned.put(&name, PinRecord { platforms: vec!["linux/amd64".parse().unwrap()], ..asked });
        pinned.set_state(&key("a"), turn, PinState::Whole, None);
        assert_eq!(state(&pinned, "a"), PinState::Waiting);
        pinned.set_state(&key("a"), pinned.turn(&key("a")), PinState::Whole, None);
        assert!(state(&pinned, "a").is_settled());
    }
}
