//! How many requests may be sent again: pure.
//!
//! A retry helps where one request in many fails. Where most of them do, retries double the load of an upstream that
//! has trouble enough; so they are paid for by requests that were sent, beyond a few that are always free.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long requests pay for retries.
const LIFE: Duration = Duration::from_secs(10);
/// Retries that nobody has to pay for, within that time.
const FREE: i64 = 100;
/// How many requests pay for one.
const PRICE: i64 = 5;

/// The account of one upstream: what was paid in and taken out over the last seconds.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    /// Sums by second, oldest first, in fifths of a retry.
    entries: VecDeque<(Instant, i64)>,
}

impl RetryBudget {
    /// A request is sent.
    pub(crate) fn deposit(&mut self, now: Instant) {
        self.enter(1, now);
    }

    /// Whether a request may be sent again, which is paid for at once.
    pub(crate) fn withdraw(&mut self, now: Instant) -> bool {
        self.expire(now);
        let balance: i64 = FREE * PRICE + self.entries.iter().map(|(_, sum)| sum).sum::<i64>();
        let is_covered = balance >= PRICE;
        if is_covered {
            self.enter(-PRICE, now);
        }
        is_covered
    }

    fn enter(&mut self, amount: i64, now: Instant) {
        self.expire(now);
        match self.entries.back_mut() {
            Some((since, sum)) if now.duration_since(*since) < Duration::from_secs(1) => *sum += amount,
            _ => self.entries.push_back((now, amount)),
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|(since, _)| now.duration_since(*since) >= LIFE) {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawals(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_few_retries_are_free_and_the_rest_is_a_fifth_of_the_requests() {
        for (requests, retries) in [(0, 100), (4, 100), (5, 101), (1000, 300)] {
            let now = Instant::now();
            let mut budget = RetryBudget::default();
            for _ in 0..requests {
                budget.deposit(now);
            }
            assert_eq!(withdrawals(&mut budget, now), retries, "{requests}");
            assert!(!budget.withdraw(now + Duration::from_secs(9)), "{requests}");
        }
    }

    #[test]
    fn both_sides_of_the_account_are_forgotten_after_a_while() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        for _ in 0..1000 {
            budget.deposit(start);
        }
        assert_eq!(withdrawals(&mut budget, start + LIFE), 100);
        assert_eq!(withdrawals(&mut budget, start + 2 * LIFE), 100);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let start = Instant::now();
        let mut budget = RetryBudget::default();
        for millis in 0..100_000 {
            budget.deposit(start + Duration::from_millis(millis));
        }
        assert!(budget.entries.len() <= 11, "{}", budget.entries.len());
    }
}
