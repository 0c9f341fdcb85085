//! What a `Range` header selects (RFC 9110 section 14.2): as asked for, and as resolved against a size.
//!
//! A header that cannot be read is ignored, as the specification allows. One that can be read is answered as it asks,
//! in its order, or refused; it is never answered with other bytes than it asks for.

use crate::oci::range::{ByteRange, RequestedRange};

/// How many ranges one request may select: as many as the clients that read images piece by piece put into one header.
pub const MAX_RANGES: usize = 1024;

/// What is asked for, before the size is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it: there is no `Range` header, or one to be ignored.
    Whole,
    /// Well formed, but nothing that any content has: it ends before it starts, or is the last 0 bytes. RFC 9110 would
    /// let the former be ignored; the conformance suite expects 416.
    Nothing,
    /// One range.
    One(RequestedRange),
    /// At least two ranges.
    Several(Vec<RequestedRange>),
}

/// What is asked for, resolved against content of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of it.
    Whole,
    /// One range.
    One(ByteRange),
    /// At least two ranges, no two of which share a byte, in the order in which they were asked for.
    Several(Vec<ByteRange>),
}

/// The header selects more than [`MAX_RANGES`] ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("More than {MAX_RANGES} ranges in one request: ask for fewer at a time")]
pub struct TooManyRanges;

/// Why a selection cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unselectable {
    /// No byte of it exists.
    OutOfRange,
    /// A byte is asked for twice. Many such ranges of a large blob are an old way to overload a server.
    Overlapping,
}

impl Selection {
    /// Reads the value of a `Range` header.
    pub fn parse(value: Option<&str>) -> Result<Self, TooManyRanges> {
        let Some(list) = value.and_then(strip_unit) else { return Ok(Self::Whole) };
        let mut ranges = Vec::new();
        // Lists may have empty elements (RFC 9110 section 5.6.1.2).
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            if ranges.len() == MAX_RANGES {
                return Err(TooManyRanges);
            }
            let Some(range) = read(text) else { return Ok(Self::Whole) };
            ranges.push(range);
        }
        if ranges.is_empty() {
            return Ok(Self::Whole);
        }
        // What cannot exist is out of range, and that is left out of a list.
        ranges.retain(|range| range.is_possible());
        Ok(match *ranges {
            [] => Self::Nothing,
            [range] => Self::One(range),
            _ => Self::Several(ranges),
        })
    }

    /// What is selected of content of `total` bytes. Ranges outside are left out as long as one is inside.
    pub fn resolve(&self, total: u64) -> Result<Selected, Unselectable> {
        let requested = match self {
            Self::Whole => return Ok(Selected::Whole),
            Self::Nothing => &[],
            Self::One(range) => std::slice::from_ref(range),
            Self::Several(ranges) => ranges.as_slice(),
        };
        // A range without bytes cannot be spelled in an answer. Clients that always send a range get all of nothing.
        if total == 0 && requested.iter().any(|range| range.begins_at_zero()) {
            return Ok(Selected::Whole);
        }
        let ranges: Vec<_> = requested.iter().filter_map(|range| range.resolve(total)).collect();
        match *ranges {
            [] => Err(Unselectable::OutOfRange),
            [range] => Ok(Selected::One(range)),
            _ if overlap(&ranges) => Err(Unselectable::Overlapping),
            _ => Ok(Selected::Several(ranges)),
        }
    }
}

fn overlap(ranges: &[ByteRange]) -> bool {
    let mut bounds: Vec<_> = ranges.iter().map(|range| (range.start(), range.end())).collect();
    bounds.sort_unstable();
    bounds.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if start < end))
}

fn strip_unit(value: &str) -> Option<&str> {
    let (unit, list) = value.trim().split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(list)
}

fn read(text: &str) -> Option<RequestedRange> {
    let (first, last) = text.split_once('-')?;
    match (position(first), position(last)) {
        (Position::Byte(first), Position::Byte(last)) => Some(RequestedRange::Closed { first, last }),
        (Position::Byte(first), Position::Omitted) => Some(RequestedRange::From { first }),
        (Position::Omitted, Position::Byte(length)) => Some(RequestedRange::Suffix { length }),
        _ => None,
    }
}

/// One side of the dash.
enum Position {
    Byte(u64),
    Omitted,
    Unreadable,
}

/// Positions past 2^64 are cut to the largest number: they are past the end of any blob.
fn position(text: &str) -> Position {
    let text = text.trim();
    if text.is_empty() {
        Position::Omitted
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Position::Byte(text.parse().unwrap_or(u64::MAX))
    } else {
        Position::Unreadable
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn closed(first: u64, last: u64) -> RequestedRange {
        RequestedRange::Closed { first, last }
    }

    fn parse(value: &str) -> Selection {
        Selection::parse(Some(value)).unwrap()
    }

    #[test]
    fn the_forms_of_the_specification_are_read() {
        let from = |first| RequestedRange::From { first };
        let suffix = |length| RequestedRange::Suffix { length };
        for (value, expected) in [
            ("bytes=0-0", Selection::One(closed(0, 0))),
            ("bytes=500-1499", Selection::One(closed(500, 1499))),
            ("Bytes = 5-", Selection::One(from(5))),
            ("bytes=-500", Selection::One(suffix(500))),
            ("bytes=99999999999999999999-", Selection::One(from(u64::MAX))),
            ("bytes=0-1, 5-6", Selection::Several(vec![closed(0, 1), closed(5, 6)])),
            ("bytes=-1,0-", Selection::Several(vec![suffix(1), from(0)])),
            ("bytes=,0-1,,", Selection::One(closed(0, 1))),
            ("bytes=500-0", Selection::Nothing),
            ("bytes=-0", Selection::Nothing),
            ("bytes=5-4,-0", Selection::Nothing),
            ("bytes=5-4,0-1", Selection::One(closed(0, 1))),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        for value in ["bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=+1-2", "items=0-1", "bytes=0-1,x", "0-1", ""]
        {
            assert_eq!(parse(value), Selection::Whole, "{value}");
        }
        assert_eq!(Selection::parse(None), Ok(Selection::Whole));
    }

    #[test]
    fn a_list_may_have_a_thousand_and_twenty_four_ranges() {
        let list = |count: u64| {
            (0..count).fold("bytes=".to_owned(), |mut list, number| {
                write!(list, "{}-{},", 10 * number, 10 * number).unwrap();
                list
            })
        };
        assert!(matches!(parse(&list(1024)), Selection::Several(ranges) if ranges.len() == MAX_RANGES));
        assert_eq!(Selection::parse(Some(&list(1025))), Err(TooManyRanges));
        assert_eq!(Selection::parse(Some(&",".repeat(60_000))), Ok(Selection::Whole));
    }

    #[test]
    fn a_list_keeps_its_order_and_loses_what_lies_outside() {
        let resolve = |value, total| parse(value).resolve(total);
        let bytes = |first, last, total| closed(first, last).resolve(total).unwrap();
        let two = Ok(Selected::Several(vec![bytes(5, 9, 10), bytes(0, 0, 10)]));
        assert_eq!(resolve("bytes=5-9,0-0", 10), two);
        assert_eq!(resolve("bytes=5-99,10-12,0-0,10-", 10), two);
        assert_eq!(resolve("bytes=10-12,0-0", 10), Ok(Selected::One(bytes(0, 0, 10))));
        assert_eq!(resolve("bytes=10-12,11-", 10), Err(Unselectable::OutOfRange));
        assert_eq!(resolve("bytes=9-1", 10), Err(Unselectable::OutOfRange));
    }

    #[test]
    fn no_byte_is_given_twice() {
        let overlapping = |value, total| parse(value).resolve(total) == Err(Unselectable::Overlapping);
        assert!(overlapping("bytes=0-5,5-9", 10));
        assert!(overlapping("bytes=5-9,0-5", 10));
        assert!(overlapping("bytes=0-9,3-4", 10));
        assert!(overlapping("bytes=0-0,0-0", 10));
        assert!(overlapping("bytes=0-5,-5", 10));
        assert!(!overlapping("bytes=0-4,5-9", 10));
        assert!(!overlapping("bytes=0-4,-5", 10));
        assert!(!overlapping("bytes=0-4,20-30,20-30", 10), "these do not exist");
    }

    #[test]
    fn of_nothing_there_is_all_or_nothing() {
        let resolve = |value| parse(value).resolve(0);
        for value in ["bytes=0-", "bytes=0-5", "bytes=-5", "bytes=0-1,5-6"] {
            assert_eq!(resolve(value), Ok(Selected::Whole), "{value}");
        }
        for value in ["bytes=1-", "bytes=1-5", "bytes=-0", "bytes=5-0", "bytes=1-2,5-6"] {
            assert_eq!(resolve(value), Err(Unselectable::OutOfRange), "{value}");
        }
    }

    fn any_range() -> impl Strategy<Value = RequestedRange> {
        let position = 0..60_u64;
        prop_oneof![
            (position.clone(), 0..20_u64).prop_map(|(first, span)| closed(first, first + span)),
            position.clone().prop_map(|first| RequestedRange::From { first }),
            position.prop_map(|length| RequestedRange::Suffix { length }),
        ]
    }

    /// Which of `total` bytes are asked for, how often: the definition in the plainest words.
    fn counts(requested: &[RequestedRange], total: u64) -> Vec<usize> {
        let asks_for = |range: &RequestedRange, byte| match *range {
            RequestedRange::Closed { first, last } => first <= byte && byte <= last,
            RequestedRange::From { first } => first <= byte,
            RequestedRange::Suffix { length } => byte + length >= total,
        };
        (0..total).map(|byte| requested.iter().filter(|range| asks_for(range, byte)).count()).collect()
    }

    proptest! {
        #[test]
        fn exactly_what_is_asked_for_is_selected(ranges in prop::collection::vec(any_range(), 2..6), total in 1..50_u64) {
            let counts = counts(&ranges, total);
            let given = match Selection::Several(ranges).resolve(total) {
                Ok(Selected::One(range)) => vec![range],
                Ok(Selected::Several(ranges)) => ranges,
                Ok(Selected::Whole) => panic!("content is not empty"),
                Err(Unselectable::OutOfRange) => vec![],
                Err(Unselectable::Overlapping) => {
                    prop_assert!(counts.iter().any(|count| *count > 1));
                    return Ok(());
                }
            };
            for (byte, count) in (0..total).zip(counts) {
                let given = given.iter().filter(|range| (range.start()..range.end()).contains(&byte)).count();
                prop_assert_eq!(given, count, "byte {}", byte);
            }
        }

        #[test]
        fn parsing_never_panics(value in ".{0,60}", total in any::<u64>()) {
            let _ = Selection::parse(Some(&value)).map(|selection| selection.resolve(total));
        }

        #[test]
        fn lists_never_panic(list in "bytes=[-0-9, ]{0,60}", total in any::<u64>()) {
            let _ = Selection::parse(Some(&list)).map(|selection| selection.resolve(total));
        }
    }
}
