//! A `Range` header on the first line, the size of the content on the second, and what an upstream may send as
//! `Content-Range` on the third.

use weir::oci::range::ByteRange;
use weir::oci::selection::{MAX_RANGES, Selected, Selection, Unselectable};

use super::{assert_can_be_shown, lines};

pub(crate) fn holds(input: &[u8]) {
    let Some([header, total, answered]) = lines(input) else { return };
    if let Some((first, last, total)) = ByteRange::parse_content_range(answered) {
        assert!(first <= last && total.is_none_or(|total| last < total), "{answered:?}");
    }
    let selection = match Selection::parse(Some(header)) {
        Ok(selection) => selection,
        Err(error) => return assert_can_be_shown(&error),
    };
    if let Selection::Several(ranges) = &selection {
        assert!((2..=MAX_RANGES).contains(&ranges.len()), "{} ranges of {header:?}", ranges.len());
    }
    for total in [total.trim().parse().unwrap_or(1000), 0, 1, u64::MAX] {
        match selection.resolve(total) {
            Ok(Selected::Whole) => assert!(selection == Selection::Whole || total == 0, "{header:?} of {total}"),
            Ok(Selected::One(range)) => lies_within(range, total),
            Ok(Selected::Several(ranges)) => {
                assert!(ranges.len() > 1, "{header:?}");
                for range in &ranges {
                    lies_within(*range, total);
                }
                share_no_byte(&ranges);
            }
            Err(Unselectable::OutOfRange) => assert_ne!(selection, Selection::Whole),
            Err(Unselectable::Overlapping) => assert!(matches!(selection, Selection::Several(_)), "{header:?}"),
        }
    }
}

fn lies_within(range: ByteRange, total: u64) {
    assert!(range.start() < range.end() && range.end() <= total, "{range} of {total}");
    assert_eq!(range.length(), range.end() - range.start());
    // What we print is what we would believe from an upstream.
    let read = ByteRange::parse_content_range(&range.to_string());
    assert_eq!(read, Some((range.start(), range.end() - 1, Some(total))));
}

/// A sum of lengths above the size would let a small request ask for much.
fn share_no_byte(ranges: &[ByteRange]) {
    for (number, range) in ranges.iter().enumerate() {
        let meets = |other: &ByteRange| range.start() < other.end() && other.start() < range.end();
        assert!(!ranges[number + 1..].iter().any(meets), "{range} is asked for twice");
    }
}
