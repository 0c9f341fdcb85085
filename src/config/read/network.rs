//! How an upstream is reached: certificates, proxy, addresses. Files are read here, and judged when clients are made.

use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use super::section::{Section, Wrong};
use super::{Reading, credentials, files, scalars};
use crate::config::files::FilesRead;
use crate::config::network::{
    Authorities, ClientCertificate, IpFamily, NetworkConfig, ProxyChoice, ProxyCredentials, Verification,
};

/// Reads how the upstream at `url` is reached.
pub(super) fn read(upstream: &Section<'_>, url: Option<&Url>, reading: &mut Reading<'_>) -> NetworkConfig {
    let authorities = pem(upstream, "ca_file", "Name a PEM file with certificates of authorities", reading.files);
    let families = [("auto", IpFamily::Auto), ("v4", IpFamily::V4), ("v6", IpFamily::V6)];
    let network = NetworkConfig {
        ca_file: authorities.map(|(file, pem)| Authorities { file, pem }),
        client_certificate: client_certificate(upstream, reading),
        verification: verification(upstream),
        proxy: proxy(upstream, reading),
        ip_family: upstream.value("ip_family", |text| scalars::word(text, &families)).unwrap_or_default(),
    };
    if let Some(url) = url {
        reading.warnings.extend(warnings(upstream, url, &network));
    }
    network
}

/// A file that is read with the configuration.
pub(super) fn pem(section: &Section<'_>, key: &str, fix: &str, files: &mut FilesRead) -> Option<(PathBuf, Arc<[u8]>)> {
    section.value(key, |text| {
        let path = scalars::path(text)?;
        match files.read(&path) {
            Ok(pem) => Ok((path, pem.into())),
            Err(error) => Err(Wrong::Refused(format!("names {text}, which cannot be read: {error}"), fix.to_owned())),
        }
    })
}

fn client_certificate(section: &Section<'_>, reading: &mut Reading<'_>) -> Option<ClientCertificate> {
    both_or_none(section, "client_cert_file", "client_key_file", "A certificate is of no use without its key");
    let fix = "Name a PEM file with the client's certificate and those that lead to its authority";
    let certificate = pem(section, "client_cert_file", fix, reading.files);
    let fix = "Name a PEM file with the private key of the certificate";
    let key = pem(section, "client_key_file", fix, reading.files);
    let ((cert_file, certificate), (key_file, key)) = certificate.zip(key)?;
    reading.warnings.extend(files::exposure(&key_file));
    Some(ClientCertificate { cert_file, key_file, certificate, key })
}

fn verification(section: &Section<'_>) -> Verification {
    match section.value("insecure_skip_verify", scalars::boolean) {
        Some(true) => Verification::Skipped,
        Some(false) | None => Verification::Required,
    }
}

fn proxy(section: &Section<'_>, reading: &mut Reading<'_>) -> ProxyChoice {
    let files = &mut *reading.files;
    let password = section.value("proxy_password_file", |path| credentials::from_file(path.as_ref(), files));
    let Some(chosen) = section.value("proxy", scalars::proxy) else {
        if section.has("proxy_password_file") && !section.has("proxy") {
            let message = format!("`{}` is given without `proxy`", section.name("proxy_password_file"));
            section.wrong("proxy_password_file", message, "Add `proxy: http://user@proxy.example.com:3128`");
        }
        return ProxyChoice::default();
    };
    let user = match &chosen {
        ProxyChoice::Server(proxy) => Some(decoded(proxy.url.username())).filter(|user| !user.is_empty()),
        ProxyChoice::Environment | ProxyChoice::None => None,
    };
    let (has_user, has_password) = (user.is_some(), section.has("proxy_password_file"));
    if has_user != has_password {
        let key = if has_user { "proxy" } else { "proxy_password_file" };
        let (there, missing) =
            if has_user { ("a user name", "`proxy_password_file`") } else { ("a password", "a user name in `proxy`") };
        let message = format!("`{}`: {there} is given without {missing}", section.name(key));
        let help = "Write `proxy: http://user@proxy.example.com:3128` and `proxy_password_file: /etc/weir/proxy`";
        section.wrong(key, message, help);
    }
    let ProxyChoice::Server(mut proxy) = chosen else { return chosen };
    // What is printed of a proxy holds no name of anybody.
    let _ = proxy.url.set_username("");
    if let (Some(username), Some((password, warning))) = (user, password) {
        reading.warnings.extend(warning);
        proxy.credentials = Some(ProxyCredentials { username, password });
    }
    ProxyChoice::Server(proxy)
}

fn decoded(user: &str) -> String {
    percent_decode_str(user).decode_utf8_lossy().into_owned()
}

/// Notes that only one of two keys is there.
pub(super) fn both_or_none(section: &Section<'_>, one: &str, other: &str, help: &str) {
    let (given, missing) = match (section.has(one), section.has(other)) {
        (true, false) => (one, other),
        (false, true) => (other, one),
        _ => return,
    };
    section.wrong(given, format!("`{}` is given without `{missing}`", section.name(given)), help);
}

fn warnings(section: &Section<'_>, url: &Url, network: &NetworkConfig) -> Vec<String> {
    let name = section.path();
    let mut warnings = Vec::new();
    if network.is_unverified(url) {
        warnings.push(format!(
            "`{name}.insecure_skip_verify` is true: whoever stands between may pose as {url} and read its credentials; \
             name its authority with `ca_file` instead"
        ));
    }
    if network.client_certificate.is_some() && url.scheme() != "https" {
        warnings.push(format!("`{name}.client_cert_file` has no effect: {url} is not encrypted"));
    }
    warnings
}
