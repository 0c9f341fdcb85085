//! Whose word on a tag counts. Pure: who said what goes in, a judgement comes out.
//!
//! The upstreams that may resolve decide in their order: the word of the first that has the tag counts. While one that
//! decides cannot tell, another is asked in its place, and what that says may be older, newer or somebody else's build.
//! So it never moves a tag back and forth: it is believed only where nothing better is known.

use crate::config::OnDrift;
use crate::oci::Digest;

/// What an upstream says that a tag means, or what one said when it was last asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) digest: Digest,
    /// The upstream's place in the order; `None` if it is not asked any more.
    pub(super) rank: Option<usize>,
    /// Whether an upstream before it could not tell.
    pub(super) undecided: bool,
}

/// What a new word means for a known tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It still means the same, by the word of one who decides.
    Same,
    /// It still means the same, as far as somebody knows who does not decide.
    Seconded,
    /// It has moved: the upstream that decides says so.
    Moved,
    /// Somebody who does not decide says something else.
    Drift,
}

/// What to do about a drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// What is known stays, if it can be had; else what is said is taken.
    Keep,
    /// What is said is taken, until the upstream that decides is back.
    Accept,
    /// The tag is not answered.
    Refuse,
}

/// What `said` means for a tag that is known by `known`.
pub(super) fn judge(known: Word, said: Word) -> Judgement {
    match (decides(known, said), known.digest == said.digest) {
        (true, true) => Judgement::Same,
        (false, true) => Judgement::Seconded,
        (true, false) => Judgement::Moved,
        (false, false) => Judgement::Drift,
    }
}

/// Whether it is for the upstream of `said` to say what the tag means.
fn decides(known: Word, said: Word) -> bool {
    let Some(rank) = known.rank else { return true };
    if said.undecided {
        // Those before it did not have the tag when they could last be asked.
        !known.undecided && said.rank == Some(rank)
    } else {
        said.rank.is_some_and(|said| said <= rank)
    }
}

/// Whether what `said` makes of a tag holds only until the upstream that decides is back.
pub(super) fn is_provisional(known: Option<Word>, said: Word) -> bool {
    said.undecided && known.is_none_or(|known| known.rank.is_none() || !decides(known, said))
}

/// What to do about a drift from `known`. One digest that was taken for want of a better one is enough: the next
/// stand-in that says something else does not move the tag again.
pub(super) fn course(policy: OnDrift, known: Word) -> Course {
    match policy {
        OnDrift::Error => Course::Refuse,
        OnDrift::Accept if !known.undecided => Course::Accept,
        OnDrift::Accept | OnDrift::KeepLast => Course::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Option<usize> = Some(0);
    const SECOND: Option<usize> = Some(1);
    const THIRD: Option<usize> = Some(2);

    fn word(content: &str, rank: Option<usize>, undecided: bool) -> Word {
        Word { digest: Digest::of(content.as_bytes()), rank, undecided }
    }

    #[test]
    fn the_first_that_has_the_tag_decides() {
        use Judgement::{Drift, Moved, Same};
        let known = |rank, undecided| word("known", rank, undecided);
        for (known, rank, undecided, judgement) in [
            // The first is always right.
            (known(FIRST, false), FIRST, false, Moved),
            (known(SECOND, true), FIRST, false, Moved),
            // While it cannot tell, nobody speaks for it.
            (known(FIRST, false), SECOND, true, Drift),
            // It says that it has the tag no more: so somebody else's word is not what it was.
            (known(FIRST, false), SECOND, false, Drift),
            // It never had it: the second decides, also while the first cannot tell.
            (known(SECOND, false), SECOND, false, Moved),
            (known(SECOND, false), SECOND, true, Moved),
            (known(SECOND, false), THIRD, false, Drift),
            (known(THIRD, false), SECOND, false, Moved),
            (known(THIRD, false), SECOND, true, Drift),
            // The second was asked in its place: one word of it is taken, not the next one.
            (known(SECOND, true), SECOND, true, Drift),
            (known(SECOND, true), THIRD, true, Drift),
            (known(SECOND, true), SECOND, false, Moved),
            // Who said it is asked no more.
            (known(None, false), SECOND, true, Moved),
        ] {
            assert_eq!(judge(known, word("other", rank, undecided)), judgement, "{known:?} {rank:?} {undecided}");
            let seconded = if judgement == Moved { Same } else { Judgement::Seconded };
            assert_eq!(judge(known, word("known", rank, undecided)), seconded, "{known:?} {rank:?} {undecided}");
        }
    }

    #[test]
    fn policy_says_what_becomes_of_a_drift() {
        let (sure, unsure) = (word("known", FIRST, false), word("known", SECOND, true));
        for (policy, from_sure, from_unsure) in [
            (OnDrift::KeepLast, Course::Keep, Course::Keep),
            (OnDrift::Accept, Course::Accept, Course::Keep),
            (OnDrift::Error, Course::Refuse, Course::Refuse),
        ] {
            assert_eq!((course(policy, sure), course(policy, unsure)), (from_sure, from_unsure), "{policy:?}");
        }
    }

    #[test]
    fn the_word_of_a_stand_in_is_provisional() {
        let known = |rank, undecided| Some(word("known", rank, undecided));
        for (known, rank, undecided, provisional) in [
            (None, FIRST, false, false),
            (None, SECOND, true, true),
            (known(FIRST, false), SECOND, true, true),
            (known(FIRST, false), SECOND, false, false),
            // It has decided before, and nobody before it has had the tag since.
            (known(SECOND, false), SECOND, true, false),
            (known(SECOND, true), SECOND, true, true),
            (known(None, false), SECOND, true, true),
        ] {
            assert_eq!(is_provisional(known, word("other", rank, undecided)), provisional, "{known:?} {rank:?}");
        }
    }

    /// What a tag means after each of `words`, by `policy`, where everything can be had.
    fn follow(policy: OnDrift, words: impl IntoIterator<Item = Word>) -> Vec<Digest> {
        let mut known = word("first", FIRST, false);
        let step = |said: Word| {
            let taken = match judge(known, said) {
                Judgement::Same | Judgement::Moved => true,
                Judgement::Seconded => false,
                Judgement::Drift => course(policy, known) == Course::Accept,
            };
            if taken {
                known = Word { undecided: is_provisional(Some(known), said), ..said };
            }
            known.digest
        };
        words.into_iter().map(step).collect()
    }

    #[test]
    fn no_tag_flaps_whatever_stand_ins_say() {
        let stand_ins = || (0..20).map(|turn| word(["second", "third"][turn % 2], Some(1 + turn % 2), true));
        let first = Digest::of(b"first");
        assert!(follow(OnDrift::KeepLast, stand_ins()).iter().all(|digest| *digest == first));
        let accepted = follow(OnDrift::Accept, stand_ins());
        assert!(accepted.iter().all(|digest| *digest == Digest::of(b"second")), "{accepted:?}");
        let moody = || (0..20).map(|turn| word(["one", "two"][turn % 2], SECOND, true));
        assert!(follow(OnDrift::Accept, moody()).iter().all(|digest| *digest == Digest::of(b"one")));
        let back = stand_ins().chain([word("new", FIRST, false)]);
        assert_eq!(follow(OnDrift::Accept, back).last(), Some(&Digest::of(b"new")));
    }
}
