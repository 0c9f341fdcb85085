//! What may stand in the files, and what is said about what may not.

use rcgen::{PKCS_ED25519, date_time_ymd};

use super::*;

fn explanation(tls: TlsConfig) -> String {
    check(&server_config(tls)).unwrap_err().to_string()
}

#[test]
fn no_files_are_fine_and_so_are_matching_ones() {
    assert!(check(&ServerConfig::default()).unwrap().is_empty());
    let directory = Directory::with(&Authority::new("ca").issue("weir.test"));
    assert!(check(&server_config(directory.config())).unwrap().is_empty());
}

#[test]
fn certificate_and_key_may_share_a_file_and_the_key_may_be_of_any_kind() {
    let directory = Directory::new();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["weir.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let both = directory.path("both.pem");
        fs::write(&both, key.serialize_pem() + &certificate.pem()).unwrap();
        check(&server_config(config(&both, &both, None))).unwrap();
    }
}

#[test]
fn what_cannot_be_used_is_named_with_its_file_and_the_fix() {
    let authority = Authority::new("ca");
    let (mine, other) = (authority.issue("weir.test"), authority.issue("weir.test"));
    let directory = Directory::with(&mine);
    let file = |name: &str, text: &str| {
        let path = directory.path(name);
        fs::write(&path, text).unwrap();
        path
    };
    let certificate = directory.path("tls.crt");
    let key = directory.path("tls.key");
    let missing = directory.path("missing.pem");
    let empty = file("empty.pem", "");
    let cut = file("cut.pem", mine.certificate.pem().split_once("-----END").unwrap().0);
    let damaged = file("damaged.pem", "-----BEGIN CERTIFICATE-----\nn0 base64!\n-----END CERTIFICATE-----\n");
    let no_certificate = file("other.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let cut_key = file("cut.key", mine.key.serialize_pem().split_once("-----END").unwrap().0);
    let encrypted = file("e.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let no_key = file("no.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let other_key = file("other.key", &other.key.serialize_pem());

    for (tls, name, parts) in [
        (config(&missing, &key, None), &missing, ["`server.tls.cert_file`", "cannot be read", "can read"]),
        (config(&certificate, &missing, None), &missing, ["`server.tls.key_file`", "cannot be read", "can read"]),
        (config(&empty, &key, None), &empty, ["`server.tls.cert_file`", "holds no certificate", "BEGIN CERTIFICATE"]),
        (config(&key, &key, None), &key, ["`server.tls.cert_file`", "holds no certificate", "BEGIN CERTIFICATE"]),
        (config(&cut, &key, None), &cut, ["`server.tls.cert_file`", "a section has no end", "write it again"]),
        (config(&damaged, &key, None), &damaged, ["`server.tls.cert_file`", "is not base64", "write it again"]),
        (config(&no_certificate, &key, None), &no_certificate, ["`server.tls.cert_file`", "cannot be used", "issued"]),
        (config(&certificate, &empty, None), &empty, ["`server.tls.key_file`", "holds no private key", "BEGIN"]),
        (config(&certificate, &certificate, None), &certificate, ["`server.tls.key_file`", "no private key", "BEGIN"]),
        (config(&certificate, &cut_key, None), &cut_key, ["`server.tls.key_file`", "has no end", "write it again"]),
        (config(&certificate, &encrypted, None), &encrypted, ["`server.tls.key_file`", "encrypted", "openssl pkey"]),
        (config(&certificate, &no_key, None), &no_key, ["`server.tls.key_file`", "cannot be used", "ECDSA"]),
        (config(&certificate, &other_key, None), &other_key, ["`server.tls.key_file`", "does not belong", "tls.crt"]),
        (config(&certificate, &key, Some(&empty)), &empty, ["`server.tls.client_ca_file`", "no certificate", "BEGIN"]),
        (config(&certificate, &key, Some(&missing)), &missing, ["`server.tls.client_ca_file`", "be read", "can read"]),
        (
            config(&certificate, &key, Some(&no_certificate)),
            &no_certificate,
            ["client_ca_file", "cannot be used", "issued"],
        ),
    ] {
        let text = explanation(tls);
        assert!(text.contains(&name.display().to_string()), "{} is not named in: {text}", name.display());
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
}

#[test]
fn a_key_is_never_repeated() {
    let directory = Directory::with(&Authority::new("ca").issue("weir.test"));
    let path = directory.path("bad.key");
    for text in [
        "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n",
        "-----BEGIN PRIVATE KEY hunter2\n",
        "hunter2",
    ] {
        fs::write(&path, text).unwrap();
        let error = check(&server_config(config(&directory.path("tls.crt"), &path, None))).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    let identity = Identity::load(&directory.config()).unwrap();
    assert!(!format!("{identity:?}").contains("PRIVATE KEY"), "{identity:?}");
}

#[test]
fn what_clients_will_refuse_is_warned_about() {
    let authority = Authority::new("ca");
    let warnings = |issued: &Issued, external_url: &str| {
        let external_url = Some(external_url.parse().unwrap());
        check(&ServerConfig { external_url, ..server_config(Directory::with(issued).config()) }).unwrap()
    };
    let expired = authority.issue_with("weir.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let [warning] = &warnings(&expired, "https://weir.test")[..] else { panic!("one warning") };
    assert!(warning.contains("tls.crt") && warning.contains("has expired"), "{warning}");

    let early = authority.issue_with("weir.test", |params| params.not_before = date_time_ymd(4000, 1, 1));
    let [warning] = &warnings(&early, "https://weir.test:5000")[..] else { panic!("one warning") };
    assert!(warning.contains("not valid yet"), "{warning}");

    for (name, url, expected) in [
        ("weir.test", "https://weir.test", 0),
        ("*.weir.test", "https://a.weir.test", 0),
        ("127.0.0.1", "https://127.0.0.1:5000", 0),
        ("::1", "https://[::1]:5000", 0),
        ("weir.test", "https://other.test", 1),
        ("weir.test", "https://127.0.0.1", 1),
    ] {
        let warnings = warnings(&authority.issue(name), url);
        assert_eq!(warnings.len(), expected, "{name} for {url}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.contains("server.external_url")), "{warnings:?}");
    }
}
