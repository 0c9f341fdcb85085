//! `server.tls`: what is asked for, and what is warned about.

use super::*;

fn config(mode: u32, more: &str) -> Config {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::write(path(name), "its content is looked at when the server starts").unwrap();
    }
    fs::set_permissions(path("tls.key"), fs::Permissions::from_mode(mode)).unwrap();
    let [certificate, key, authority] = ["tls.crt", "tls.key", "ca.crt"].map(|name| path(name).display().to_string());
    valid(&format!(
        "server: {{ tls: {{ cert_file: {certificate}, key_file: {key}, client_ca_file: {authority} }}, {more} }}"
    ))
}

#[test]
fn names_the_files() {
    let config = config(0o600, "");
    let tls = config.server.tls.as_ref().unwrap();
    assert!(tls.cert_file.ends_with("tls.crt") && tls.key_file.ends_with("tls.key"), "{tls:?}");
    assert!(tls.client_ca_file.as_ref().unwrap().ends_with("ca.crt"), "{tls:?}");
    assert_eq!(config.server.url_of(config.server.listen).unwrap().as_str(), "https://127.0.0.1:5000/");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn warns_about_a_key_for_everybody_and_clients_sent_to_the_wrong_scheme() {
    let config = config(0o644, "external_url: 'http://weir.example.com'");
    assert!(config.warnings[0].contains("tls.key can be read by every user"), "{:?}", config.warnings);
    assert!(config.warnings[1].contains("clients need https://"), "{:?}", config.warnings);
}
