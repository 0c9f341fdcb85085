//! `store.s3`: the bucket, and who to be to it. Keys are read here, once, from the files that are named or from the
//! variables that every program for AWS looks at.

use std::path::PathBuf;

use url::Url;

use super::section::Section;
use super::{Reading, credentials, network, scalars};
use crate::config::bucket::{AccessKey, Addressing, BucketConfig, BucketCredentials};
use crate::config::network::Authorities;
use crate::config::secret::Secret;

/// Where AWS keeps a bucket unless it is told otherwise; other servers take any region, or say which.
const DEFAULT_REGION: &str = "us-east-1";
const DEFAULT_UPLOAD_MEMORY: u64 = 64 * 1024 * 1024;

/// Reads `store.s3`.
pub(super) fn read(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<BucketConfig> {
    if section.is_map() && !section.has("bucket") {
        let help = "Write it as `s3: { bucket: images, region: eu-west-1 }`";
        section.wrong("bucket", format!("`{}` is missing", section.name("bucket")), help);
    }
    let name = section.value("bucket", scalars::bucket_name);
    let region = section.value("region", scalars::region);
    let region = region.or_else(|| variable(reading, "AWS_REGION").or_else(|| variable(reading, "AWS_DEFAULT_REGION")));
    let endpoint = section.value("endpoint", scalars::endpoint);
    // Servers other than that of AWS seldom have a name per bucket.
    let path_style = section.value("path_style", scalars::boolean).unwrap_or(endpoint.is_some());
    let addressing = if path_style { Addressing::Path } else { Addressing::Host };
    let authorities =
        network::pem(section, "ca_file", "Name a PEM file with certificates of authorities", reading.files);
    let prefix = section.value("prefix", scalars::key_prefix).unwrap_or_default();
    let upload_memory = section.value("upload_memory", scalars::upload_memory).unwrap_or(DEFAULT_UPLOAD_MEMORY);
    let max_size = section.value("max_size", scalars::bytes);
    let redirect = section.value("redirect", scalars::boolean).unwrap_or(false);
    let credentials = credentials(section, reading);
    Some(BucketConfig {
        name: name?,
        region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        endpoint,
        prefix,
        addressing,
        authorities: authorities.map(|(file, pem)| Authorities { file, pem }),
        upload_memory,
        max_size,
        redirect,
        credentials: credentials?,
    })
}

/// Who to be, from the first source that there is. `None` if it was wrong, which is noted.
fn credentials(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<BucketCredentials> {
    if section.has("access_key_id_file") || section.has("secret_access_key_file") {
        return key_from_files(section, reading).map(BucketCredentials::Key);
    }
    let (id, secret) = (variable(reading, "AWS_ACCESS_KEY_ID"), variable(reading, "AWS_SECRET_ACCESS_KEY"));
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let session_token = variable(reading, "AWS_SESSION_TOKEN").map(Secret::new);
            Some(BucketCredentials::Key(AccessKey { id, secret: Secret::new(secret), session_token }))
        }
        (None, None) => Some(given_by_others(reading)),
        (id, _) => {
            let (given, missing) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
            let (given, missing) = if id.is_some() { (given, missing) } else { (missing, given) };
            let message =
                format!("The environment variable {given} is set without {missing}, for `{}`", section.path());
            section.wrong("bucket", message, "Set both to the two halves of the key, or neither");
            None
        }
    }
}

fn key_from_files(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<AccessKey> {
    network::both_or_none(section, "access_key_id_file", "secret_access_key_file", "A key has two halves");
    let mut file = |key| section.value(key, |path| credentials::from_file(path.as_ref(), reading.files));
    // The name of a key is no secret, so whoever can read it learns nothing.
    let (id, _) = file("access_key_id_file").unzip();
    let (secret, warning) = file("secret_access_key_file").unzip();
    reading.warnings.extend(warning.flatten());
    Some(AccessKey { id: id?.expose().to_owned(), secret: secret?, session_token: None })
}

/// What a cluster or a cloud gives to its machines.
fn given_by_others(reading: &Reading<'_>) -> BucketCredentials {
    let file = |name| variable(reading, name).map(PathBuf::from);
    if let (Some(token_file), Some(role)) = (file("AWS_WEB_IDENTITY_TOKEN_FILE"), variable(reading, "AWS_ROLE_ARN")) {
        let session = variable(reading, "AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "weir".to_owned());
        return BucketCredentials::WebIdentity { role, token_file, session };
    }
    let url = variable(reading, "AWS_CONTAINER_CREDENTIALS_FULL_URI").and_then(|url| Url::parse(&url).ok());
    match (url, file("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")) {
        (Some(url), Some(token_file)) => BucketCredentials::Agent { url, token_file },
        _ => BucketCredentials::Instance,
    }
}

fn variable(reading: &Reading<'_>, name: &str) -> Option<String> {
    let found = reading.environment.iter().find(|(variable, value)| variable == name && !value.is_empty());
    found.map(|(_, value)| value.clone())
}
