//! Credential helpers of docker: `docker-credential-<name> get`, which reads the name of a server and writes JSON.
//!
//! The program gets this process's environment and directory, ten seconds, and no way to fill our memory or our log:
//! what it writes beside its answer is thrown away, because nobody can tell whether it holds a secret.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::loan::{Lent, Source, SourceError};
use crate::config::{Credential, CredentialHelper, Secret};

/// From its start to its end.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Answers have a few kilobytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// What all helpers say when they have nothing for a server, with an exit status other than zero.
const NOT_FOUND: &str = "credentials not found";

/// A helper, and what it is asked.
#[derive(Debug)]
pub(crate) struct Helper(CredentialHelper);

impl Helper {
    /// Nothing is run yet.
    pub(crate) const fn new(helper: CredentialHelper) -> Self {
        Self(helper)
    }

    async fn run(&self) -> Result<Option<Lent>, SourceError> {
        let mut command = Command::new(&self.0.program);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(SourceError::Start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not listen may still know the answer.
            let _ = stdin.write_all(format!("{}\n", self.0.server).as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut answer).await.map_err(SourceError::Read)?;
        }
        if answer.len() as u64 > MAX_ANSWER_BYTES {
            return Err(SourceError::Malformed);
        }
        let status = child.wait().await.map_err(SourceError::Read)?;
        if status.success() {
            let credential = parse(&answer).ok_or(SourceError::Malformed)?;
            Ok(Some(Lent { credential, life: self.0.lifetime }))
        } else if String::from_utf8_lossy(&answer).contains(NOT_FOUND) {
            Ok(None)
        } else {
            Err(SourceError::Failed(status))
        }
    }
}

impl Source for Helper {
    fn fetch(&self) -> BoxFuture<'_, Result<Option<Lent>, SourceError>> {
        Box::pin(async { timeout(TIMEOUT, self.run()).await.unwrap_or(Err(SourceError::Late(TIMEOUT))) })
    }
}

fn parse(answer: &[u8]) -> Option<Credential> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Answer { username, secret } = serde_json::from_slice(answer).ok()?;
    (!username.is_empty() && !secret.is_empty()).then(|| Credential::of(&username, Secret::new(secret)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    /// A helper that runs this script. Another process makes the file: as long as one of ours had it open for writing,
    /// it could not be run.
    fn helper(script: &str) -> (TempDir, Helper) {
        let directory = tempfile::tempdir().unwrap();
        let (text, program) = (directory.path().join("text"), directory.path().join("docker-credential-test"));
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        let installed = std::process::Command::new("install").args(["-m", "755"]).arg(&text).arg(&program).status();
        assert!(installed.unwrap().success());
        let server = "registry.test:5000".to_owned();
        (directory, Helper::new(CredentialHelper { program, server, lifetime: Duration::from_secs(600) }))
    }

    async fn answer(script: &str) -> Result<Option<Credential>, SourceError> {
        let (_directory, helper) = helper(script);
        helper.fetch().await.map(|lent| lent.map(|lent| lent.credential))
    }

    #[tokio::test]
    async fn a_helper_is_told_the_server_and_answers_with_a_secret() {
        let script = r#"read server; [ "$1" = get ] && printf '{"ServerURL":"%s","Username":"u","Secret":"for %s"}' "$server" "$server""#;
        let expected = Credential::of("u", Secret::new("for registry.test:5000"));
        assert_eq!(answer(script).await.unwrap(), Some(expected));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(answer(token).await.unwrap(), Some(Credential::IdentityToken(Secret::new("t"))));
    }

    #[tokio::test]
    async fn nothing_found_is_no_failure_and_a_failure_repeats_nothing() {
        let found = answer("echo 'credentials not found in native keychain'; exit 1").await;
        assert_eq!(found.unwrap(), None);
        let failed = answer("echo hunter2; echo hunter2 >&2; exit 3").await.unwrap_err();
        assert_eq!(failed.to_string(), "It ended with exit status: 3; run it by hand to see why");
        for script in
            ["echo hunter2", "echo '{\"Username\":\"u\"}'", "echo '{\"Username\":\"\",\"Secret\":\"hunter2\"}'"]
        {
            let error = answer(script).await.unwrap_err();
            assert!(matches!(error, SourceError::Malformed), "{script}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_off() {
        let error = answer("while :; do echo hunter2hunter2hunter2hunter2; done").await.unwrap_err();
        assert!(matches!(error, SourceError::Malformed), "{error}");
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_told() {
        let helper = CredentialHelper {
            program: Path::new("/none/docker-credential-none").to_owned(),
            server: "a.test".to_owned(),
            lifetime: Duration::from_secs(1),
        };
        let error = Helper::new(helper).fetch().await.unwrap_err();
        assert!(matches!(error, SourceError::Start(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_hangs_is_given_up_after_ten_seconds() {
        let (_directory, helper) = helper("exec sleep 1000");
        let begun = tokio::time::Instant::now();
        let error = helper.fetch().await.unwrap_err();
        assert!(matches!(error, SourceError::Late(_)), "{error}");
        assert_eq!(begun.elapsed(), TIMEOUT);
    }

    #[tokio::test]
    async fn a_helper_that_is_given_up_is_ended() {
        let outside = tempfile::tempdir().unwrap();
        let pipe = outside.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut receiver = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&pipe).unwrap();
        // It holds the pipe open as long as it lives, and nobody else does.
        let (_directory, helper) = helper(&format!("exec 3>{}; echo $$ >&3; exec sleep 1000", pipe.display()));
        let watched = async {
            let mut pid = String::new();
            while !pid.ends_with('\n') {
                pid.push(char::from(receiver.read_u8().await.unwrap()));
            }
            assert!(Path::new("/proc").join(pid.trim()).exists());
            tokio::time::pause();
            tokio::time::advance(TIMEOUT).await;
            tokio::time::resume();
        };
        let (fetched, ()) = tokio::join!(helper.fetch(), watched);
        let error = fetched.unwrap_err();
        assert!(matches!(error, SourceError::Late(_)), "{error}");
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(60), receiver.read_to_end(&mut rest)).await;
        assert!(ended.is_ok_and(|read| read.is_ok()), "it lives on");
    }
}
