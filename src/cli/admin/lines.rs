//! Work of the server that takes long, followed line by line.

use std::process::ExitCode;
use std::time::Duration;

use http::StatusCode;

use super::{Admin, AdminError, Question, Shown, client};
use crate::admin::Event;

/// How long the server may say nothing: it says how far it is more often than that.
const SILENCE: Duration = Duration::from_secs(120);

/// The exit code when some of the work could not be done.
const PARTLY: u8 = 4;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Outcome {
    /// How many tasks came to a good end.
    pub(in crate::cli) done: u64,
    /// How many failed.
    pub(in crate::cli) failed: u64,
}

impl Outcome {
    /// The exit code: part of the interface, scripts rely on it.
    pub(in crate::cli) fn exit_code(self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(PARTLY) }
    }
}

impl Admin {
    /// Has the server do something, and hands over what it says, with the line that said so, as it is said.
    ///
    /// # Errors
    /// Also if the answer ends before the work has: then nobody knows what came of it.
    pub(in crate::cli) fn follow(
        &self,
        question: &Question<'_>,
        mut each: impl FnMut(&Event, &str),
    ) -> Result<Outcome, AdminError> {
        self.in_runtime(async {
            let client = client().read_timeout(SILENCE).build().map_err(|error| self.failed(&error))?;
            let mut answer = self.request(&client, question).send().await.map_err(|error| self.failed(&error))?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(answer).await);
            }
            let mut outcome = None;
            let mut lines = Lines::default();
            // A break and an end come to the same: what counts is whether the last line was said.
            while let Ok(Some(bytes)) = answer.chunk().await {
                for line in lines.take(&bytes) {
                    let event: Event = serde_json::from_str(&line).map_err(|_| self.not_weir())?;
                    each(&event, &line);
                    if let Event::End { done, failed } = event {
                        outcome = Some(Outcome { done, failed });
                    }
                }
            }
            outcome.ok_or_else(|| AdminError::BrokenOff(Shown::of(&self.url)))
        })
    }
}

/// Lines out of pieces.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are whole with `bytes`. What no text could be is passed on as such.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.0.split_off(end + 1);
        let whole = std::mem::replace(&mut self.0, rest);
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"{\"a\""), [""; 0]);
        assert_eq!(lines.take(b":1}\n{}\n{\"b"), ["{\"a\":1}", "{}"]);
        assert_eq!(lines.take(b"\":2}\n"), ["{\"b\":2}"]);
        assert!(lines.0.is_empty());
    }

    #[test]
    fn work_that_failed_in_part_has_an_exit_code_of_its_own() {
        let code = |failed| format!("{:?}", Outcome { done: 1, failed }.exit_code());
        assert_eq!(code(0), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(2), format!("{:?}", ExitCode::from(4)));
    }
}
