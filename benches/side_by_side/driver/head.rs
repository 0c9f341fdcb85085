//! The head of an answer: as little of it as a load driver needs.

/// The longest head that is accepted; none of the servers sends a fifth of it.
pub(crate) const LONGEST: usize = 8 << 10;

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// `Content-Length`.
    pub(crate) length: Option<u64>,
    /// How many bytes the head takes, its empty line included.
    pub(crate) size: usize,
}

/// Why bytes are no head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("The answer does not begin with an HTTP/1.1 status line")]
    StatusLine,
    #[error("The head of the answer is longer than {LONGEST} bytes")]
    TooLong,
}

/// The head at the start of `bytes`, or `None` if it is not complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut length = None;
    let mut at = 0;
    while let Some(line_length) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = bytes[at..at + line_length].trim_ascii_end();
        at += line_length + 1;
        if line.is_empty() {
            let status = status(bytes).ok_or(Malformed::StatusLine)?;
            return Ok(Some(Head { status, length, size: at }));
        }
        if let Some(value) = content_length(line) {
            length = Some(value);
        }
    }
    if bytes.len() >= LONGEST { Err(Malformed::TooLong) } else { Ok(None) }
}

fn status(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn content_length(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}
