//! A reader of `multipart/byteranges`, after RFC 2046 section 5.1.1 and independent of what Weir writes it with: parts
//! are found by their delimiters, as clients find them, and never by the lengths they announce.

use super::weir::Answer;

/// One part: its media type, the first and last byte and the total that it announces, and its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) media_type: String,
    pub(crate) range: (u64, u64, u64),
    pub(crate) bytes: Vec<u8>,
}

/// The parts of an answer that is a 206 of several.
#[track_caller]
pub(crate) fn parts(answer: &Answer) -> Vec<Part> {
    assert_eq!(
        answer.status.as_u16(),
        206,
        "{}",
        String::from_utf8_lossy(&answer.start[..answer.start.len().min(500)])
    );
    assert!(answer.complete, "the answer broke after {} bytes", answer.size);
    assert_eq!(answer.header("content-range"), "", "only its parts have one");
    assert_eq!(answer.size, answer.start.len() as u64, "tests read short answers");
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.unwrap_or_else(|| panic!("no multipart answer: {:?}", answer.headers));
    assert!((1..=70).contains(&boundary.len()) && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()));

    let delimiter = format!("\r\n--{boundary}");
    let mut rest = behind(&answer.start, delimiter.as_bytes());
    assert_eq!(answer.start.len() - rest.len(), delimiter.len(), "nothing stands before the first part");
    let mut parts = Vec::new();
    loop {
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            assert_eq!(epilogue, b"\r\n");
            return parts;
        }
        let part = rest.strip_prefix(b"\r\n").expect("a delimiter ends its line");
        let next = behind(part, delimiter.as_bytes());
        parts.push(read(&part[..part.len() - next.len() - delimiter.len()]));
        rest = next;
    }
}

fn read(part: &[u8]) -> Part {
    let bytes = behind(part, b"\r\n\r\n");
    let head = std::str::from_utf8(&part[..part.len() - bytes.len()]).expect("heads are text");
    let value = |name: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned());
        values.next().unwrap_or_else(|| panic!("no {name} in {head:?}"))
    };
    let range = value("content-range");
    let numbers: Vec<u64> = range
        .strip_prefix("bytes ")
        .expect("a range of bytes")
        .split(['-', '/'])
        .map(|number| number.parse().expect("a number"))
        .collect();
    let [first, last, total] = numbers[..] else { panic!("{range}") };
    assert_eq!(bytes.len() as u64, last - first + 1, "{range}");
    Part { media_type: value("content-type"), range: (first, last, total), bytes: bytes.to_vec() }
}

/// What follows the first occurrence of `mark`.
#[track_caller]
fn behind<'a>(text: &'a [u8], mark: &[u8]) -> &'a [u8] {
    let at = text.windows(mark.len()).position(|window| window == mark);
    &text[at.unwrap_or_else(|| panic!("no {:?}", String::from_utf8_lossy(mark))) + mark.len()..]
}
