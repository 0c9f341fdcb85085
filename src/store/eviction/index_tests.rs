//! What goes, in which order, and what that costs.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::eviction::policy::{NEWEST_FOR, RECENT};

const MIB: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const REPOSITORY: RepositoryKey = RepositoryKey::numbered(1);
const OTHER: RepositoryKey = RepositoryKey::numbered(2);

fn blob(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn days(days: u32) -> Tick {
    Tick::START.after(DAY * days)
}

fn image(repository: RepositoryKey, manifest: u32, blobs: &[u32]) -> Image {
    let blobs = blobs.iter().map(|number| (blob(*number), MIB * u64::from(number % 7 + 1))).collect();
    Image { repository, manifest: (blob(manifest), 1000), blobs, manifests: Vec::new() }
}

/// Pulls an image: the manifest, and then what of it is not here.
fn pull(index: &mut Index, image: &Image, now: Tick) {
    if !index.contains(&image.manifest.0) {
        index.stored(&image.manifest.0, image.manifest.1, now);
    }
    index.served(image, now);
    for (digest, size) in &image.blobs {
        if index.contains(digest) {
            index.used(digest, now);
        } else {
            index.stored(digest, *size, now);
        }
    }
}

/// Everything that goes until nothing is left that could, in this order.
fn all_that_goes(index: &mut Index, now: Tick) -> Vec<Digest> {
    let mut gone = Vec::new();
    while let Some(victim) = index.choose(now) {
        assert_eq!(index.removed(&victim.digest), Some(victim.size));
        gone.push(victim.digest);
    }
    gone
}

#[test]
fn images_go_whole_and_what_others_share_stays() {
    let mut index = Index::default();
    let (old, new) = (image(REPOSITORY, 1, &[10, 11, 12, 13]), image(OTHER, 2, &[10, 11, 14, 15]));
    pull(&mut index, &old, days(0));
    pull(&mut index, &new, days(1));
    let mut gone = all_that_goes(&mut index, days(3));
    let mut rest = gone.split_off(3);
    gone.sort_unstable();
    rest.sort_unstable();
    let sorted = |numbers: &[u32]| {
        let mut digests: Vec<_> = numbers.iter().copied().map(blob).collect();
        digests.sort_unstable();
        digests
    };
    assert_eq!(gone, sorted(&[1, 12, 13]), "manifest, config and layers that nobody else has");
    assert_eq!(rest, sorted(&[2, 10, 11, 14, 15]));
}

#[test]
fn of_images_pulled_in_the_same_hour_one_goes_before_the_other() {
    let mut index = Index::default();
    let images: Vec<_> =
        (0..5).map(|number| image(REPOSITORY, number, &[100 + 7 * number, 200 + 7 * number])).collect();
    for image in &images {
        pull(&mut index, image, days(0));
    }
    let gone = all_that_goes(&mut index, days(1));
    let of = |digest: &Digest| {
        images
            .iter()
            .position(|image| image.manifest.0 == *digest || image.blobs.iter().any(|(blob, _)| blob == digest))
    };
    let order: Vec<_> = gone.iter().map(|digest| of(digest).unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn what_is_used_often_outlives_what_was_used_once() {
    let mut index = Index::default();
    for day in 0..8 {
        pull(&mut index, &image(REPOSITORY, 1, &[10]), days(day));
    }
    for scanned in 0..100 {
        pull(&mut index, &image(OTHER, 1000 + scanned, &[2000 + scanned]), days(8));
    }
    let gone = all_that_goes(&mut index, days(9));
    assert!(gone[gone.len() - 2..].contains(&blob(10)), "a scan does not wash it out");
}

#[test]
fn what_was_used_just_now_does_not_go() {
    let mut index = Index::default();
    index.stored(&blob(1), MIB, days(0));
    assert_eq!((index.choose(days(0)), index.evictable(days(0))), (None, 0));
    index.used(&blob(1), days(1));
    assert_eq!(index.choose(days(1).after(RECENT / 2)), None);
    assert_eq!(index.evictable(days(1).after(RECENT)), MIB);
    assert_eq!(index.choose(days(1).after(RECENT)), Some(Victim { digest: blob(1), size: MIB }));
}

#[test]
fn whoever_is_used_or_stored_while_it_goes_stays() {
    let rescues: [fn(&mut Index); 4] = [
        |index| index.used(&blob(1), days(1)),
        |index| assert_eq!(index.stored(&blob(1), 7, days(1)), Some(MIB)),
        |index| index.pin(&[blob(1)], days(1)),
        |index| index.stays(&blob(1), days(1)),
    ];
    for rescue in rescues {
        let mut index = Index::default();
        index.stored(&blob(1), MIB, days(0));
        assert!(index.choose(days(1)).is_some() && index.is_leaving(&blob(1)));
        assert_eq!(index.choose(days(1)), None, "it is chosen once");
        rescue(&mut index);
        assert!(!index.is_leaving(&blob(1)) && index.contains(&blob(1)));
    }
}

#[test]
fn pins_hold_for_what_is_here_and_for_what_is_to_come() {
    let mut index = Index::default();
    index.stored(&blob(1), MIB, days(0));
    index.pin(&[blob(1), blob(2)], days(0));
    index.stored(&blob(2), MIB, days(0));
    index.stored(&blob(3), MIB, days(0));
    assert_eq!(all_that_goes(&mut index, days(1000)), [blob(3)]);
    let now = Lifetime { max_age: Some(Duration::from_secs(1)), max_idle: None };
    assert_eq!(index.sweep(0, 100, &now, days(1000)), (Vec::new(), None));
    index.pin(&[blob(2)], days(1000));
    assert_eq!(all_that_goes(&mut index, days(1000)), [blob(1)], "what is no longer pinned goes");
}

#[test]
fn what_is_nowhere_else_yet_goes_after_everything_else_and_not_by_age() {
    let mut index = Index::default();
    let newest = image(REPOSITORY, 4, &[]);
    index.resolved(REPOSITORY, 1, &blob(4), days(0));
    index.stored(&blob(1), MIB, days(0));
    index.unsent(&blob(1), days(0));
    index.unsent(&blob(2), days(0));
    for number in 2..=4 {
        index.stored(&blob(number), MIB, days(0));
    }
    index.served(&newest, days(0));
    let short = Lifetime { max_age: Some(Duration::from_secs(1)), max_idle: None };
    index.evictable(days(2));
    let over: Vec<_> = index.sweep(0, 100, &short, days(2)).0.iter().map(|victim| victim.digest).collect();
    assert_eq!(over, [blob(3), blob(4)]);
    for digest in &over {
        index.stays(digest, days(2));
    }
    let (first, second) = (index.choose(days(2)).unwrap(), index.choose(days(2)).unwrap());
    assert_eq!([first.digest, second.digest], [blob(3), blob(4)]);
    index.sent(&blob(1), days(2));
    assert_eq!(all_that_goes(&mut index, days(3)), [blob(1), blob(2)]);
}

#[test]
fn the_newest_tag_of_a_repository_goes_last_as_long_as_somebody_uses_it() {
    let mut index = Index::default();
    let (old, new) = (image(REPOSITORY, 1, &[10, 11]), image(REPOSITORY, 2, &[10, 12]));
    pull(&mut index, &new, days(0));
    index.resolved(REPOSITORY, 20, &blob(2), days(0));
    index.served(&new, days(0));
    for day in 0..3 {
        pull(&mut index, &old, days(day));
        index.resolved(REPOSITORY, 10, &blob(1), days(day));
    }
    let gone = all_that_goes(&mut index, days(4));
    let place = |number| gone.iter().position(|digest| *digest == blob(number)).unwrap();
    assert!(place(1) < place(2) && place(11) < place(12), "whatever the older one is worth");
    assert!(place(11) < place(10), "and what they share");

    let mut index = Index::default();
    pull(&mut index, &new, days(0));
    index.resolved(REPOSITORY, 20, &blob(2), days(0));
    index.served(&new, days(0));
    let idle = days(0).after(NEWEST_FOR);
    pull(&mut index, &old, idle.before(DAY));
    index.evictable(idle);
    index.sweep(0, 100, &Lifetime::default(), idle);
    let gone = all_that_goes(&mut index, idle);
    assert!(gone[..2].contains(&blob(12)) && gone[..2].contains(&blob(2)), "nobody has used it for a week");
}

#[test]
fn an_index_keeps_the_images_that_it_names() {
    let mut index = Index::default();
    let parent = Image { manifests: vec![blob(2)], ..image(REPOSITORY, 1, &[]) };
    index.stored(&blob(1), 1000, days(0));
    index.resolved(REPOSITORY, 20, &blob(1), days(0));
    index.served(&parent, days(0));
    pull(&mut index, &image(REPOSITORY, 2, &[10]), days(0));
    pull(&mut index, &image(OTHER, 3, &[11]), days(1));
    let gone = all_that_goes(&mut index, days(2));
    assert!(gone[..2].contains(&blob(11)) && gone[2..].contains(&blob(10)), "whatever was used last");
}

#[test]
fn a_lifetime_ends_whatever_room_there_is() {
    let mut index = Index::default();
    for number in 0..10 {
        index.stored(&blob(number), 1, days(number));
    }
    let now = days(10);
    index.evictable(now);
    let lifetime = Lifetime { max_age: Some(DAY * 6), max_idle: None };
    let (mut over, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let (more, then) = index.sweep(from, 3, &lifetime, now);
        over.extend(more);
        next = then;
    }
    assert_eq!(over.len(), 5, "those of the days 0 to 4");
    assert!(over.iter().all(|victim| index.is_leaving(&victim.digest)));
}

#[test]
fn times_of_files_are_believed_and_written_at_most_once_an_hour() {
    let mut index = Index::default();
    let hour = Duration::from_secs(60 * 60);
    assert!(index.found(&blob(1), 5, days(0), days(3), days(4)));
    assert!(!index.found(&blob(1), 5, days(0), days(3), days(4)), "it is known");
    assert!(index.take_hints(10).is_empty());
    for minute in 0..60 {
        index.used(&blob(1), days(4).after(hour * minute / 60));
    }
    assert_eq!(index.take_hints(10), [blob(1)]);
    assert!(index.take_hints(10).is_empty());
    index.used(&blob(1), days(4).after(hour));
    index.removed(&blob(1));
    assert!(index.take_hints(10).is_empty(), "there is no such file any more");
}

/// Times that no clock gives, from files of another machine: every order of them is an order.
#[test]
fn hints_of_any_time_make_nothing_immortal() {
    let mut index = Index::default();
    let now = days(4);
    for (number, used) in
        (0..).zip([Tick::START.before(Duration::MAX), days(0), days(4), Tick::START.after(Duration::MAX)])
    {
        index.found(&blob(number), 1, used.min(now), used.min(now), now);
    }
    assert_eq!(all_that_goes(&mut index, now.after(RECENT)), [blob(0), blob(1), blob(2), blob(3)]);
}

/// Operations on the order, each of which takes the logarithm of its length: a look at those used just now and one at the
/// others, the way out of one and the way into the other.
#[test]
fn a_decision_costs_as_much_among_a_hundred_thousand_as_among_a_thousand() {
    const ADMISSIONS: u64 = 1000;
    let operations = |blobs: u32| {
        let mut index = Index::default();
        for number in 0..blobs {
            index.stored(&blob(number), MIB, days(0));
        }
        index.evictable(days(1));
        // All are used, at once: whoever looks for the first to go does not have to sort them for it.
        for number in 0..blobs {
            index.used(&blob(number), days(1));
        }
        index.evictable(days(2));
        let before = index.operations();
        for admission in 0..u32::try_from(ADMISSIONS).unwrap() {
            let victim = index.choose(days(3)).unwrap();
            index.removed(&victim.digest);
            index.stored(&blob(blobs + admission), MIB, days(3));
        }
        index.operations() - before
    };
    for blobs in [1_000, 10_000, 100_000] {
        let operations = operations(blobs);
        assert!(operations <= 4 * ADMISSIONS, "{operations} with {blobs} blobs");
    }
}

#[test]
fn a_blob_takes_less_than_160_bytes_of_memory() {
    // Just beyond a power of two, where tables have just grown; all of them kept by newest tags.
    let count = 120_000;
    let mut index = Index::default();
    for number in 0..count {
        if number % 10 == 0 {
            let repository = RepositoryKey::numbered(number.into());
            index.resolved(repository, 1, &blob(number), days(0));
            index.served(&image(repository, number, &(number + 1..number + 10).collect::<Vec<_>>()), days(0));
        }
        index.stored(&blob(number), MIB, days(0));
    }
    index.evictable(days(1));
    let each = index.memory() / count as usize;
    assert!(each <= 160, "{each} bytes");
}

#[derive(Debug, Clone)]
enum Step {
    Store(u32, u64),
    Use(u32),
    Serve(u32),
    Resolve(u32),
    Pin(Vec<u32>),
    Remove(u32),
    Evict(u64),
    Sweep(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..24_u32;
    prop::collection::vec(
        prop_oneof![
            4 => (number.clone(), 1..5 * MIB).prop_map(|(number, size)| Step::Store(number, size)),
            4 => number.clone().prop_map(Step::Use),
            2 => number.clone().prop_map(Step::Serve),
            1 => number.clone().prop_map(Step::Resolve),
            1 => prop::collection::vec(number.clone(), 0..4).prop_map(Step::Pin),
            1 => number.prop_map(Step::Remove),
            2 => (1..20 * MIB).prop_map(Step::Evict),
            1 => (1..100_000_u64).prop_map(Step::Sweep),
            3 => (0..200_000_u64).prop_map(Step::Wait),
        ],
        0..80,
    )
}

/// What must hold, by a model that is nothing but a table.
fn run(steps: &[Step]) -> Vec<Digest> {
    let (mut index, mut now) = (Index::default(), Tick::START);
    let mut model: HashMap<u32, (u64, Tick)> = HashMap::new();
    let (mut pinned, mut gone) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Store(number, size) => {
                let before = model.insert(*number, (*size, now)).map(|(size, _)| size);
                assert_eq!(index.stored(&blob(*number), *size, now), before);
            }
            Step::Use(number) => {
                index.used(&blob(*number), now);
                model.entry(*number).and_modify(|(_, used)| *used = now);
            }
            Step::Serve(number) => {
                let blobs = [number + 1, number + 2];
                index.served(&image(REPOSITORY, *number, &blobs), now);
                for number in blobs.into_iter().chain([*number]) {
                    model.entry(number).and_modify(|(_, used)| *used = now);
                }
            }
            Step::Resolve(number) => index.resolved(REPOSITORY, now.since(Tick::START).as_secs(), &blob(*number), now),
            Step::Pin(numbers) => {
                pinned.clone_from(numbers);
                index.pin(&numbers.iter().copied().map(blob).collect::<Vec<_>>(), now);
            }
            Step::Remove(number) => {
                assert_eq!(index.removed(&blob(*number)), model.remove(number).map(|(size, _)| size));
            }
            Step::Evict(wanted) => {
                let may_go = |(number, (_, used)): (&u32, &(u64, Tick))| {
                    !pinned.contains(number) && !is_recent(*used, now, RECENT)
                };
                let possible: u64 = model.iter().filter(|entry| may_go(*entry)).map(|(_, (size, _))| size).sum();
                assert_eq!(index.evictable(now), possible);
                let mut freed = 0;
                while freed < *wanted {
                    let Some(victim) = index.choose(now) else { break };
                    let number = *model.keys().find(|number| blob(**number) == victim.digest).unwrap();
                    let (size, used) = model.remove(&number).unwrap();
                    assert!(!pinned.contains(&number) && !is_recent(used, now, RECENT), "{number} is protected");
                    assert_eq!((victim.size, index.removed(&victim.digest)), (size, Some(size)));
                    freed += size;
                    gone.push(victim.digest);
                }
                assert!(freed >= (*wanted).min(possible), "{freed} of {wanted}, where {possible} could go");
            }
            Step::Sweep(seconds) => {
                let lifetime = Lifetime { max_age: None, max_idle: Some(Duration::from_secs(*seconds)) };
                let (over, next) = index.sweep(0, 1000, &lifetime, now);
                assert_eq!(next, None);
                for victim in over {
                    let number = *model.keys().find(|number| blob(**number) == victim.digest).unwrap();
                    let (_, used) = model.remove(&number).unwrap();
                    assert!(now.since(used) >= Duration::from_secs(*seconds) && !pinned.contains(&number));
                    index.removed(&victim.digest);
                }
            }
            Step::Wait(seconds) => now = now.after(Duration::from_secs(*seconds)),
        }
        assert_eq!(index.bytes(), model.values().map(|(size, _)| size).sum::<u64>());
        assert_eq!(index.len(), model.len());
    }
    gone
}

proptest! {
    #[test]
    fn the_protected_stay_enough_goes_and_the_same_happens_twice(steps in steps()) {
        prop_assert_eq!(run(&steps), run(&steps));
    }
}

#[test]
fn before_a_bucket_what_is_pinned_stays_only_until_it_is_there() {
    let mut index = Index::before_bucket();
    index.pin(&[blob(1), blob(2)], days(0));
    for number in 1..=2 {
        index.stored(&blob(number), MIB, days(0));
    }
    index.unsent(&blob(1), days(0));
    assert_eq!(all_that_goes(&mut index, days(1)), [blob(2)]);
    index.sent(&blob(1), days(1));
    assert_eq!(all_that_goes(&mut index, days(2)), [blob(1)]);
}
