//! Answers to work that takes long: a line of JSON for each thing that happens, `application/x-ndjson`.
//!
//! Both ends of such an answer are written in terms of [`Event`]. The invariant: an answer that ends without
//! [`Event::End`] was broken off, and nobody can tell what came of the work.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// The media type of such answers.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// How many lines wait for a slow reader before the work does.
const WAITING: usize = 64;

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// How far a task has come.
    Progress {
        /// Which: an image, a digest, the name of the work if it has but one.
        task: String,
        /// How far.
        #[serde(flatten)]
        so_far: SoFar,
    },
    /// A task has come to a good end.
    Done {
        /// Which.
        task: String,
        /// What it came to.
        #[serde(flatten)]
        so_far: SoFar,
        /// What there is to say about it, if anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A task has failed. Others go on.
    Failed {
        /// Which.
        task: String,
        /// Why.
        reason: String,
    },
    /// All tasks have ended, and nothing follows.
    End {
        /// How many came to a good end.
        done: u64,
        /// How many failed.
        failed: u64,
    },
}

/// How much of a task is done. What it comes to in all may be learnt on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoFar {
    /// Blobs and manifests, or whatever the task is made of.
    pub objects: u64,
    /// How many there are in all, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_objects: Option<u64>,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes in all, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_bytes: Option<u64>,
}

/// Where the lines go.
#[derive(Debug, Clone)]
pub struct Lines(mpsc::Sender<Event>);

/// Nobody reads the answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

impl Lines {
    /// An answer that ends when all of these are dropped.
    pub fn answer() -> (Self, Response) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let lines = stream::unfold(receiver, async |mut receiver| {
            let event: Event = receiver.recv().await?;
            Some((line(&event), receiver))
        });
        let headers = [(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")];
        (Self(sender), (headers, Body::from_stream(lines)).into_response())
    }

    /// Says what happened.
    ///
    /// # Errors
    /// If nobody reads it: then nothing that is done for the answer alone needs to go on.
    pub async fn say(&self, event: Event) -> Result<(), Unread> {
        self.0.send(event).await.map_err(|_| Unread)
    }

    /// Returns once nobody reads the answer any more.
    pub async fn unread(&self) {
        self.0.closed().await;
    }
}

fn line(event: &Event) -> serde_json::Result<Bytes> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn events_travel_as_lines_and_come_back_as_they_were() {
        let so_far = SoFar { objects: 3, of_objects: Some(9), bytes: 1 << 20, of_bytes: None };
        let events = [
            Event::Progress { task: "nginx".into(), so_far },
            Event::Done { task: "nginx".into(), so_far, note: None },
            Event::Failed { task: "redis".into(), reason: "Gone\nfor good".into() },
            Event::End { done: 1, failed: 1 },
        ];
        let (lines, answer) = Lines::answer();
        for event in events.clone() {
            lines.say(event).await.unwrap();
        }
        drop(lines);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text.lines().count(), events.len());
        assert!(text.starts_with(r#"{"event":"progress","task":"nginx","objects":3,"of_objects":9,"bytes":1048576}"#));
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events);
    }

    #[tokio::test]
    async fn who_speaks_learns_that_nobody_listens() {
        let (lines, answer) = Lines::answer();
        drop(answer);
        lines.unread().await;
        assert_eq!(lines.say(Event::End { done: 0, failed: 0 }).await, Err(Unread));
    }
}
