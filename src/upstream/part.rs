//! Whether an answer gives the bytes that were asked for: pure.
//!
//! A part of a blob has no digest of its own, and bytes from the wrong place spoil what they are put behind. So the
//! answer has to say where its bytes belong, and to be consistent in it; what says nothing is counted off from the
//! first byte or passed over.

use std::fmt;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::error::UpstreamError;
use crate::oci::ByteRange;

/// The part of a blob that is asked for. Printed as the value of a `Range` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesAsked {
    /// The first byte.
    pub first: u64,
    /// The last byte, itself included; `None` for all that follow.
    pub last: Option<u64>,
}

impl BytesAsked {
    /// From `first` to the end.
    pub const fn from(first: u64) -> Self {
        Self { first, last: None }
    }

    /// The value of the `Range` header.
    pub(super) fn header(self) -> Option<HeaderValue> {
        self.to_string().try_into().ok()
    }
}

impl fmt::Display for BytesAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        write!(f, "bytes={first}-")?;
        last.map_or(Ok(()), |last| write!(f, "{last}"))
    }
}

/// What a body has to come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The size of the whole blob, if the upstream told.
    pub(super) size: Option<u64>,
    /// How many bytes come, if that is known.
    pub(super) length: Option<u64>,
    /// How many of them lie before what was asked for, and are not handed out.
    pub(super) skip: u64,
}

impl Extent {
    /// Of a whole blob: as announced, else as a descriptor said.
    pub(super) fn whole(announced: Option<u64>, expected: Option<u64>) -> Self {
        Self { size: announced, length: announced.or(expected), skip: 0 }
    }

    /// Of a successful answer to `asked`; `total` is the size of the whole blob, where it is known.
    ///
    /// # Errors
    /// [`super::error::Verdict::WrongPart`] if the answer is not, or may not be, the part that was asked for.
    pub(super) fn of_part(
        status: StatusCode,
        headers: &HeaderMap,
        asked: BytesAsked,
        total: Option<u64>,
    ) -> Result<Self, UpstreamError> {
        let coding =
            headers.get(CONTENT_ENCODING).filter(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
        if coding.is_some() {
            return Err(UpstreamError::range("Answered with a part of other bytes: it is encoded"));
        }
        match status {
            StatusCode::PARTIAL_CONTENT => Self::of_partial(headers, asked, total),
            StatusCode::OK => Self::of_ignored(headers, asked, total),
            _ => Err(UpstreamError::range(format!("Answered {status} to a request for a part"))),
        }
    }

    fn of_partial(headers: &HeaderMap, asked: BytesAsked, total: Option<u64>) -> Result<Self, UpstreamError> {
        let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range = value.and_then(ByteRange::parse_content_range);
        let Some((first, last, size)) = range else {
            return Err(UpstreamError::range("Answered with a part and did not say which"));
        };
        if let (Some(size), Some(total)) = (size, total)
            && size != total
        {
            return Err(UpstreamError::range(format!("Answered with a part of {size} bytes for a blob of {total}")));
        }
        let size = size.or(total);
        let wanted_last = match (asked.last, size) {
            (Some(last), Some(size)) => Some(last.min(size.saturating_sub(1))),
            (last, size) => last.or(size.map(|size| size.saturating_sub(1))),
        };
        if first != asked.first || wanted_last.is_some_and(|wanted| last != wanted) {
            return Err(UpstreamError::range(format!(
                "Answered with the bytes {first}-{last} when asked for `{asked}`"
            )));
        }
        let length = last - first + 1;
        if let Some(announced) = content_length(headers).filter(|announced| *announced != length) {
            let message = format!("Announced {announced} bytes for a part of {length}");
            return Err(UpstreamError::range(message));
        }
        Ok(Self { size, length: Some(length), skip: 0 })
    }

    /// The range was ignored. What was asked for is in there; to the end, the rest can be counted off.
    fn of_ignored(headers: &HeaderMap, asked: BytesAsked, total: Option<u64>) -> Result<Self, UpstreamError> {
        let announced = content_length(headers);
        match (announced, total) {
            (Some(announced), Some(total)) if announced != total => {
                Err(UpstreamError::range(format!("Announced {announced} bytes for a blob of {total}")))
            }
            _ if asked.last.is_some() => {
                Err(UpstreamError::range("Answered with the whole blob when asked for a part"))
            }
            (Some(announced), _) if announced <= asked.first => {
                Err(UpstreamError::range(format!("Announced {announced} bytes when asked for `{asked}`")))
            }
            _ => Ok(Self { skip: asked.first, ..Self::whole(announced, total) }),
        }
    }
}

/// The announced length; of the answer to a HEAD only the header tells it.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Verdict;

    const ASKED: BytesAsked = BytesAsked::from(4);
    const CLOSED: BytesAsked = BytesAsked { first: 4, last: Some(7) };

    fn judge(
        asked: BytesAsked,
        status: u16,
        headers: &[(&'static str, &'static str)],
        total: Option<u64>,
    ) -> Result<Extent, Verdict> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Extent::of_part(StatusCode::from_u16(status).unwrap(), &headers, asked, total).map_err(|error| error.verdict)
    }

    #[test]
    fn the_header_is_spelled_as_rfc_9110_says() {
        assert_eq!(ASKED.header().unwrap(), "bytes=4-");
        assert_eq!(CLOSED.header().unwrap(), "bytes=4-7");
    }

    #[test]
    fn the_part_that_was_asked_for_is_taken() {
        let part = |size, length| Ok(Extent { size, length: Some(length), skip: 0 });
        for total in [None, Some(10)] {
            assert_eq!(judge(ASKED, 206, &[("content-range", "bytes 4-9/10")], total), part(Some(10), 6));
            assert_eq!(judge(CLOSED, 206, &[("content-range", "bytes 4-7/10")], total), part(Some(10), 4));
        }
        assert_eq!(
            judge(CLOSED, 206, &[("content-range", "bytes 4-5/6")], None),
            part(Some(6), 2),
            "the end is nearer"
        );
        assert_eq!(judge(ASKED, 206, &[("content-range", "bytes 4-9/*")], Some(10)), part(Some(10), 6));
        assert_eq!(judge(ASKED, 206, &[("content-range", "bytes 4-9/*")], None), part(None, 6));
        let with_length =
            [("content-range", "bytes 4-9/10"), ("content-length", "6"), ("content-encoding", "identity")];
        assert_eq!(judge(ASKED, 206, &with_length, Some(10)), part(Some(10), 6));
    }

    #[test]
    fn other_parts_are_not() {
        let rows: &[(BytesAsked, &[(&'static str, &'static str)])] = &[
            (ASKED, &[]),
            (ASKED, &[("content-range", "nonsense")]),
            (ASKED, &[("content-range", "bytes 0-9/10")]),
            (ASKED, &[("content-range", "bytes 5-9/10")]),
            (ASKED, &[("content-range", "bytes 4-8/10")]),
            (ASKED, &[("content-range", "bytes 4-10/11")]),
            (ASKED, &[("content-range", "bytes 4-8/*")]),
            (ASKED, &[("content-range", "bytes 4-9/10"), ("content-length", "10")]),
            (ASKED, &[("content-range", "bytes 4-9/10"), ("content-encoding", "gzip")]),
            (CLOSED, &[("content-range", "bytes 4-9/10")]),
            (CLOSED, &[("content-range", "bytes 4-6/10")]),
        ];
        for (asked, headers) in rows {
            assert_eq!(judge(*asked, 206, headers, Some(10)), Err(Verdict::WrongPart), "{headers:?}");
        }
        assert_eq!(judge(ASKED, 204, &[], None), Err(Verdict::WrongPart));
    }

    #[test]
    fn an_ignored_range_is_counted_off_up_to_where_it_begins() {
        let rest = |size| Ok(Extent { size, length: Some(10), skip: 4 });
        assert_eq!(judge(ASKED, 200, &[("content-length", "10")], None), rest(Some(10)));
        assert_eq!(judge(ASKED, 200, &[], Some(10)), rest(None));
        assert_eq!(judge(ASKED, 200, &[("content-length", "4")], None), Err(Verdict::WrongPart));
        assert_eq!(judge(ASKED, 200, &[("content-length", "11")], Some(10)), Err(Verdict::WrongPart));
        assert_eq!(
            judge(CLOSED, 200, &[("content-length", "10")], Some(10)),
            Err(Verdict::WrongPart),
            "all of it, for a few"
        );
    }
}
