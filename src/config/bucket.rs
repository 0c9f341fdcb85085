//! The bucket of a store of kind `s3`: where it is, and who to be to it.

use std::path::PathBuf;

use url::Url;

use super::network::Authorities;
use super::secret::Secret;

/// How many parts of uploads are in memory at once, whatever the number of uploads.
pub const PARTS_IN_MEMORY: u64 = 8;

/// The least that every server takes as a part of an upload that is not its last.
pub const SMALLEST_PART: u64 = 5 * 1024 * 1024;

/// A bucket on a server that speaks S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name.
    pub name: String,
    /// The region it is in, which is part of every signature.
    pub region: String,
    /// The server. `None`: that of AWS in the region.
    pub endpoint: Option<Url>,
    /// What all keys begin with, without a slash at either end. Empty for nothing.
    pub prefix: String,
    /// How a request names the bucket.
    pub addressing: Addressing,
    /// Certificate authorities trusted besides the system's.
    pub authorities: Option<Authorities>,
    /// How many bytes parts of uploads may take in memory together, at least [`PARTS_IN_MEMORY`] times
    /// [`SMALLEST_PART`].
    pub upload_memory: u64,
    /// The most bytes of blobs and manifests in it. `None`: it is not bounded.
    pub max_size: Option<u64>,
    /// Whether clients are sent to the bucket for blobs.
    pub redirect: bool,
    /// Who to be.
    pub credentials: BucketCredentials,
}

impl BucketConfig {
    /// How much of a blob is in one part of its upload.
    pub const fn part_size(&self) -> u64 {
        self.upload_memory / PARTS_IN_MEMORY
    }

    /// Whether `other` differs in nothing but what may change while it is in use: who to be, and how it is used.
    pub fn is_same_bucket(&self, other: &Self) -> bool {
        let Self { credentials, max_size, redirect, .. } = other;
        let (credentials, max_size, redirect) = (credentials.clone(), *max_size, *redirect);
        let as_other = Self { max_size, redirect, credentials, ..self.clone() };
        as_other == *other
    }
}

/// How a request names the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// As the first part of the path: `https://s3.example.com/images/..`.
    Path,
    /// As the first label of the host: `https://images.s3.example.com/..`.
    Host,
}

/// Who to be to a bucket: the sources of AWS, in the order in which they are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketCredentials {
    /// A key, from files that the configuration names or from `AWS_ACCESS_KEY_ID` and the like.
    Key(AccessKey),
    /// A role by the token of a Kubernetes service account (IRSA): `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`.
    WebIdentity {
        /// The role to take on.
        role: String,
        /// The token, read each time that it is needed.
        token_file: PathBuf,
        /// How the session is called in audits.
        session: String,
    },
    /// What an agent on the node gives (EKS Pod Identity): `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    Agent {
        /// Where the agent answers.
        url: Url,
        /// What to show it, read each time that it is needed.
        token_file: PathBuf,
    },
    /// What the machine's metadata service gives.
    Instance,
}

/// A key that does not change by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its name.
    pub id: String,
    /// The key itself.
    pub secret: Secret,
    /// What goes with it if it is a temporary one.
    pub session_token: Option<Secret>,
}

impl BucketCredentials {
    /// What kind of source they come from, for logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::WebIdentity { .. } => "web identity",
            Self::Agent { .. } => "agent",
            Self::Instance => "instance metadata",
        }
    }
}
