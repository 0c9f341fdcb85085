//! Which of several accounts is asked with: pure.

use std::cmp::Reverse;
use std::time::Duration;

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Accounts of one number are as good as each other; a lower number comes first.
    pub(super) group: usize,
    /// For how long it is not used.
    pub(super) cooling: Option<Duration>,
    /// How many pulls it has left; `None` if nobody has said that there is an end to them.
    pub(super) remaining: Option<u64>,
}

/// Accounts in the order in which they are tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ranked<T> {
    /// Those that may be used.
    pub(crate) usable: Vec<T>,
    /// If others may not: the time until the first of them may.
    pub(crate) paused: Option<Duration>,
}

/// Sorts `accounts` by group, and within a group by what is left, most first; of equals the first one given is first.
pub(super) fn rank<T>(mut accounts: Vec<(T, Standing)>) -> Ranked<T> {
    let paused = accounts.iter().filter_map(|(_, standing)| standing.cooling).min();
    accounts.retain(|(_, standing)| standing.cooling.is_none());
    accounts.sort_by_key(|(_, standing)| (standing.group, Reverse(standing.remaining.unwrap_or(u64::MAX))));
    Ranked { usable: accounts.into_iter().map(|(account, _)| account).collect(), paused }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_its_group_the_one_with_the_most_left_is_first_and_those_that_cool_down_are_left_out() {
        let of = |group, remaining| Standing { group, cooling: None, remaining };
        let free = |remaining| of(0, remaining);
        let cooling = |seconds| Standing { cooling: Some(Duration::from_secs(seconds)), ..free(Some(1000)) };
        let rows: &[(&[Standing], &[usize], Option<u64>)] = &[
            (&[], &[], None),
            (&[free(None)], &[0], None),
            (&[free(Some(0))], &[0], None),
            (&[free(Some(5)), free(Some(7)), free(Some(6))], &[1, 2, 0], None),
            (&[free(Some(5)), free(Some(5))], &[0, 1], None),
            (&[free(Some(5)), free(None)], &[1, 0], None),
            (&[of(0, Some(5)), of(1, Some(9)), of(0, Some(6)), of(1, None)], &[2, 0, 3, 1], None),
            (&[cooling(9), free(Some(0))], &[1], Some(9)),
            (&[cooling(9), of(7, None), cooling(3)], &[1], Some(3)),
            (&[cooling(9), cooling(3)], &[], Some(3)),
        ];
        for (standings, usable, paused) in rows {
            let ranked = rank(standings.iter().copied().enumerate().collect());
            let expected = Ranked { usable: usable.to_vec(), paused: paused.map(Duration::from_secs) };
            assert_eq!(ranked, expected, "{standings:?}");
        }
    }
}
