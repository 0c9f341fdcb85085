//! The configuration, as a client.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{RetryConfig, StaticCredentialProvider};
use url::Url;

use super::credentials::Credentials;
use super::transport::Transport;
use crate::config::{AccessKey, Addressing, BucketConfig, BucketCredentials};
use crate::store::error::OpenError;

/// A client, and who it is.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) s3: AmazonS3,
    /// Where requests go.
    pub(super) endpoint: Url,
    credentials: Arc<Credentials>,
    transport: Transport,
}

impl Connected {
    pub(super) fn new(config: &BucketConfig) -> Result<Self, OpenError> {
        let transport = Transport::new(config)?;
        let credentials = Credentials::new(source(config, &transport)?);
        let provider: AwsCredentialProvider = Arc::clone(&credentials) as _;
        let s3 = build(config, builder(config, &transport)?.with_credentials(provider))?;
        Ok(Self { s3, endpoint: address(config)?, credentials, transport })
    }

    pub(super) fn set_credentials(&self, config: &BucketConfig) -> Result<(), OpenError> {
        self.credentials.replace(source(config, &self.transport)?);
        Ok(())
    }
}

fn builder(config: &BucketConfig, transport: &Transport) -> Result<AmazonS3Builder, OpenError> {
    let endpoint = address(config)?;
    let builder = AmazonS3Builder::new()
        .with_bucket_name(&config.name)
        .with_region(&config.region)
        .with_endpoint(endpoint.as_str().trim_end_matches('/'))
        .with_virtual_hosted_style_request(config.addressing == Addressing::Host)
        .with_allow_http(true)
        // Over TLS nothing can change on its way; without it the signature tells.
        .with_unsigned_payload(endpoint.scheme() == "https")
        // Not every server has it, and one request per object is no more work for those who evict.
        .with_disable_bulk_delete(true)
        // When to try again is decided here, for all requests alike.
        .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() })
        .with_http_connector(transport.clone());
    Ok(builder)
}

fn build(config: &BucketConfig, builder: AmazonS3Builder) -> Result<AmazonS3, OpenError> {
    builder.build().map_err(|error| unusable(config, &error))
}

fn unusable(config: &BucketConfig, reason: &dyn std::fmt::Display) -> OpenError {
    OpenError::Bucket { name: config.name.clone(), reason: reason.to_string() }
}

/// Where credentials come from.
fn source(config: &BucketConfig, transport: &Transport) -> Result<AwsCredentialProvider, OpenError> {
    let builder = builder(config, transport)?;
    let builder = match &config.credentials {
        BucketCredentials::Key(AccessKey { id, secret, session_token }) => {
            return Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
                key_id: id.clone(),
                secret_key: secret.expose().to_owned(),
                token: session_token.as_ref().map(|token| token.expose().to_owned()),
            })));
        }
        BucketCredentials::WebIdentity { role, token_file, session } => builder
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file.to_string_lossy())
            .with_config(AmazonS3ConfigKey::RoleArn, role)
            .with_config(AmazonS3ConfigKey::RoleSessionName, session),
        BucketCredentials::Agent { url, token_file } => builder
            .with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, url.as_str())
            .with_config(AmazonS3ConfigKey::ContainerAuthorizationTokenFile, token_file.to_string_lossy()),
        BucketCredentials::Instance => builder,
    };
    Ok(Arc::clone(build(config, builder)?.credentials()))
}

/// The server, with the name of the bucket in it if that is how it is addressed.
fn address(config: &BucketConfig) -> Result<Url, OpenError> {
    let domain = if config.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let mut url = match &config.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => {
            Url::parse(&format!("https://s3.{}.{domain}", config.region)).map_err(|error| unusable(config, &error))?
        }
    };
    if config.addressing == Addressing::Host {
        let host = url.host_str().map(|host| format!("{}.{host}", config.name));
        url.set_host(host.as_deref()).map_err(|error| unusable(config, &error))?;
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(s3: &str) -> BucketConfig {
        let text = format!("store: {{ kind: s3, s3: {{ bucket: images, {s3} }} }}");
        Config::from_yaml(&text).unwrap().store.bucket.unwrap()
    }

    #[test]
    fn the_bucket_is_named_in_the_host_or_in_the_path() {
        for (s3, expected) in [
            ("region: eu-west-1", "https://images.s3.eu-west-1.amazonaws.com/"),
            ("region: cn-north-1", "https://images.s3.cn-north-1.amazonaws.com.cn/"),
            ("path_style: true", "https://s3.us-east-1.amazonaws.com/"),
            ("endpoint: 'http://127.0.0.1:9000'", "http://127.0.0.1:9000/"),
            ("endpoint: 'https://s3.test', path_style: false", "https://images.s3.test/"),
        ] {
            assert_eq!(address(&config(s3)).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn every_source_of_credentials_makes_a_client() {
        let files: (std::path::PathBuf, Url) = ("token".into(), "http://169.254.170.23/v1".parse().unwrap());
        let (token_file, url) = files;
        let key = AccessKey { id: "id".into(), secret: crate::config::Secret::new("secret"), session_token: None };
        for credentials in [
            BucketCredentials::Key(key),
            BucketCredentials::WebIdentity { role: "r".into(), token_file: token_file.clone(), session: "s".into() },
            BucketCredentials::Agent { url, token_file },
            BucketCredentials::Instance,
        ] {
            let config = BucketConfig { credentials, ..config("region: eu-west-1") };
            let connected = Connected::new(&config).unwrap();
            connected.set_credentials(&config).unwrap();
        }
    }
}
