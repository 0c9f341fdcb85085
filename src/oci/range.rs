//! Byte ranges (RFC 9110 section 14): as asked for, and as resolved against a size.

use std::fmt;

/// What a `Range` header asks for, before the size is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedRange {
    /// `bytes=a-b`: from a to b, both included.
    Closed {
        /// The first byte.
        first: u64,
        /// The last byte, not before `first`.
        last: u64,
    },
    /// `bytes=a-`: from a to the end.
    From {
        /// The first byte.
        first: u64,
    },
    /// `bytes=-n`: the last n bytes.
    Suffix {
        /// How many bytes, counted from the end.
        length: u64,
    },
}

/// How a `Range` header is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeHeader {
    /// There is none, or one that RFC 9110 allows to ignore: another unit, or unreadable.
    Whole,
    /// One range.
    Single(RequestedRange),
    /// Well formed, but it ends before it starts: answered 416, as the conformance suite expects.
    Inverted,
    /// More than one range.
    Multiple,
}

impl RangeHeader {
    /// Reads the value of a `Range` header.
    pub fn parse(value: Option<&str>) -> Self {
        let Some(list) = value.and_then(strip_unit) else { return Self::Whole };
        if list.contains(',') {
            return Self::Multiple;
        }
        let Some((first, last)) = list.trim().split_once('-') else { return Self::Whole };
        match (position(first), position(last)) {
            (Position::Byte(first), Position::Byte(last)) if first <= last => {
                Self::Single(RequestedRange::Closed { first, last })
            }
            (Position::Byte(_), Position::Byte(_)) => Self::Inverted,
            (Position::Byte(first), Position::Omitted) => Self::Single(RequestedRange::From { first }),
            (Position::Omitted, Position::Byte(length)) => Self::Single(RequestedRange::Suffix { length }),
            _ => Self::Whole,
        }
    }
}

fn strip_unit(value: &str) -> Option<&str> {
    let (unit, list) = value.trim().split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(list)
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

/// A non-empty run of bytes within content of a known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    start: u64,
    end: u64,
    total: u64,
}

impl RequestedRange {
    /// Resolves the range against content of `total` bytes. `None` if no byte of it exists: the answer is 416.
    pub fn resolve(self, total: u64) -> Option<ByteRange> {
        let (start, end) = match self {
            Self::Closed { first, last } => (first, last.saturating_add(1).min(total)),
            Self::From { first } => (first, total),
            Self::Suffix { length } => (total.saturating_sub(length), total),
        };
        (start < end).then_some(ByteRange { start, end, total })
    }

    /// The first byte asked for, if it can be told without the size.
    pub fn first(self) -> Option<u64> {
        match self {
            Self::Closed { first, .. } | Self::From { first } => Some(first),
            Self::Suffix { .. } => None,
        }
    }
}

impl ByteRange {
    /// The first byte.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The byte after the last one.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes.
    pub const fn length(&self) -> u64 {
        self.end - self.start
    }

    /// Reads a `Content-Range` header of an upstream's 206: `bytes 5-9/10`, or `/*` where the size is withheld.
    pub fn parse_content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
        let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse::<u64>().ok()?),
        };
        (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
    }
}

/// Printed as the value of a `Content-Range` header.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/{}", self.start, self.end - 1, self.total)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_forms_of_the_specification_are_read() {
        let single = |range| RangeHeader::Single(range);
        for (value, expected) in [
            ("bytes=0-0", single(RequestedRange::Closed { first: 0, last: 0 })),
            ("bytes=500-1499", single(RequestedRange::Closed { first: 500, last: 1499 })),
            ("Bytes = 5-", single(RequestedRange::From { first: 5 })),
            ("bytes=-500", single(RequestedRange::Suffix { length: 500 })),
            ("bytes=500-0", RangeHeader::Inverted),
            ("bytes=0-1,5-6", RangeHeader::Multiple),
            ("bytes=99999999999999999999-", single(RequestedRange::From { first: u64::MAX })),
            ("bytes=", RangeHeader::Whole),
            ("bytes=-", RangeHeader::Whole),
            ("bytes=a-b", RangeHeader::Whole),
            ("bytes=+1-2", RangeHeader::Whole),
            ("items=0-1", RangeHeader::Whole),
        ] {
            assert_eq!(RangeHeader::parse(Some(value)), expected, "{value}");
        }
        assert_eq!(RangeHeader::parse(None), RangeHeader::Whole);
    }

    #[test]
    fn ranges_are_clamped_to_the_content() {
        let closed = |first, last| RequestedRange::Closed { first, last };
        assert_eq!(closed(2000, 5000).resolve(2048).unwrap().to_string(), "bytes 2000-2047/2048");
        assert_eq!(closed(2048, 5000).resolve(2048), None);
        assert_eq!(RequestedRange::Suffix { length: 0 }.resolve(10), None);
        assert_eq!(RequestedRange::Suffix { length: 99 }.resolve(10).unwrap().to_string(), "bytes 0-9/10");
        assert_eq!(RequestedRange::From { first: 0 }.resolve(0), None);
    }

    #[test]
    fn content_ranges_of_upstreams_are_checked() {
        assert_eq!(ByteRange::parse_content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(ByteRange::parse_content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "items 0-1/2", "bytes 5-9"] {
            assert_eq!(ByteRange::parse_content_range(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_resolved_range_lies_within_the_content(first in any::<u64>(), span in any::<u64>(), total in any::<u64>()) {
            let requested = [
                RequestedRange::Closed { first, last: first.saturating_add(span) },
                RequestedRange::From { first },
                RequestedRange::Suffix { length: span },
            ];
            for range in requested.into_iter().filter_map(|range| range.resolve(total)) {
                prop_assert!(range.start() < range.end() && range.end() <= total);
                prop_assert_eq!(ByteRange::parse_content_range(&range.to_string()), Some((range.start(), range.end() - 1, Some(total))));
            }
        }

        #[test]
        fn parsing_never_panics(value in ".{0,60}") {
            let _ = (RangeHeader::parse(Some(&value)), ByteRange::parse_content_range(&value));
        }
    }
}
