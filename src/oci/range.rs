//! One byte range (RFC 9110 section 14): as asked for, and as resolved against a size.

use std::fmt;

/// One range of a `Range` header, before the size is known.
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

    /// Whether some content has bytes in this range: not if it ends before it starts, nor if it is the last none.
    pub const fn is_possible(self) -> bool {
        match self {
            Self::Closed { first, last } => first <= last,
            Self::From { .. } => true,
            Self::Suffix { length } => length > 0,
        }
    }

    /// Whether the range begins at the first byte of content that is shorter than all it asks for.
    pub const fn begins_at_zero(self) -> bool {
        match self {
            Self::Closed { first, .. } | Self::From { first } => first == 0,
            Self::Suffix { length } => length > 0,
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

    /// The size of the content that it is a range of.
    pub const fn total(&self) -> u64 {
        self.total
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
            let _ = ByteRange::parse_content_range(&value);
        }
    }
}
