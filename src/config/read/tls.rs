//! `server.tls`: that both halves are named and there. What is in the files is a matter of the server's start.

use super::section::Section;
use super::{Reading, files, keys};
use crate::config::server::TlsConfig;

/// Reads TLS as `server` configures it.
pub(super) fn read(server: &Section<'_>, reading: &mut Reading<'_>) -> Option<TlsConfig> {
    if !server.has("tls") {
        return None;
    }
    let section = server.section("tls", &keys::TLS);
    for key in ["cert_file", "key_file"] {
        if section.is_map() && !section.has(key) {
            let help = "Write it as `tls: { cert_file: /etc/weir/tls.crt, key_file: /etc/weir/tls.key }`";
            section.wrong(key, format!("`{}` is missing", section.name(key)), help);
        }
    }
    let mut file = |key, fix| section.value(key, |text| files::readable(text, fix, reading.files));
    let cert_file =
        file("cert_file", "Name a PEM file with the server's certificate and those that lead to its authority");
    let key_file = file("key_file", "Name a PEM file with the private key of the certificate");
    let client_ca_file = file("client_ca_file", "Name a PEM file with the authorities of clients' certificates");
    reading.warnings.extend(key_file.as_deref().and_then(files::exposure));
    Some(TlsConfig { cert_file: cert_file?, key_file: key_file?, client_ca_file })
}
