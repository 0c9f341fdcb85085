//! The parts of the benchmark that its numbers depend on. It has no harness that could run tests of its own.

#[path = "../benches/side_by_side/driver/head.rs"]
mod head;
#[path = "../benches/side_by_side/driver/histogram.rs"]
mod histogram;

use std::time::Duration;

use head::{Head, LONGEST, Malformed, parse};
use histogram::Histogram;

const ANSWER: &[u8] = b"HTTP/1.1 206 Partial Content\r\ncontent-LENGTH: 12\r\nServer: x\r\n\r\nbody";

#[test]
fn a_head_ends_at_its_empty_line() {
    let head = Head { status: 206, length: Some(12), size: ANSWER.len() - 4 };
    assert_eq!(parse(ANSWER), Ok(Some(head)));
}

#[test]
fn a_head_in_pieces_is_waited_for() {
    for length in 0..ANSWER.len() - 4 {
        assert_eq!(parse(&ANSWER[..length]), Ok(None));
    }
}

#[test]
fn what_is_no_answer_is_refused() {
    assert_eq!(parse(b"HTTP/2 200\r\n\r\n"), Err(Malformed::StatusLine));
    assert_eq!(parse(&[b'x'; LONGEST]), Err(Malformed::TooLong));
}

#[test]
fn a_quantile_is_right_to_one_in_64_from_nanoseconds_to_minutes() {
    for exponent in 0..40 {
        for nanoseconds in [1_u64 << exponent, (1 << exponent) + (1 << exponent >> 1), (2 << exponent) - 1] {
            let mut histogram = Histogram::new();
            histogram.record(Duration::from_nanos(nanoseconds));
            histogram.record(Duration::from_hours(1));
            let found = u64::try_from(histogram.quantile(0.5).as_nanos()).unwrap();
            assert!(nanoseconds <= found && found - nanoseconds <= nanoseconds / 64, "{nanoseconds} became {found}");
        }
    }
}

#[test]
fn quantiles_are_those_of_all_that_was_recorded() {
    let (mut one, mut other) = (Histogram::new(), Histogram::new());
    for microseconds in 1..=500 {
        one.record(Duration::from_micros(microseconds));
        other.record(Duration::from_micros(500 + microseconds));
    }
    one.merge(&other);
    for (part, microseconds) in [(0.001, 1.0), (0.5, 500.0), (0.99, 990.0)] {
        let found = one.quantile(part).as_secs_f64() * 1e6;
        assert!((found / microseconds - 1.0).abs() < 0.02, "{part} is {found} instead of {microseconds}");
    }
    assert_eq!(one.quantile(1.0), Duration::from_millis(1));
    assert_eq!(one.max(), Duration::from_millis(1));
    assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
}
