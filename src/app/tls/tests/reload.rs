//! Files that change under a running server.

use std::sync::Arc;
use std::time::Duration;

use rcgen::date_time_ymd;

use super::*;
use crate::app::tls::certificates::Reload;
use crate::app::tls::validity::Validity;

fn reloads(metrics: &Metrics, outcome: &str) -> u64 {
    metrics.tls.certificate_reloads.with_label_values(&[outcome]).get()
}

fn expiry(metrics: &Metrics) -> u64 {
    metrics.tls.certificate_expiry.with_label_values(&["server"]).get().try_into().unwrap()
}

fn expiry_of(issued: &Issued) -> u64 {
    Validity::of(issued.certificate.der()).unwrap().not_after
}

#[test]
fn a_new_certificate_takes_the_place_of_the_old_one() {
    let authority = Authority::new("ca");
    let first = authority.issue_with("weir.test", |params| params.not_after = date_time_ymd(2100, 1, 1));
    let second = authority.issue_with("weir.test", |params| params.not_after = date_time_ymd(2101, 1, 1));
    let directory = Directory::with(&first);
    let (certificates, metrics) = certificates(directory.config());
    assert_eq!(expiry(&metrics), expiry_of(&first));

    directory.write(&first);
    assert!(matches!(certificates.reload(), Reload::Unchanged));
    let before = certificates.server();
    directory.write(&second);
    assert!(matches!(certificates.reload(), Reload::Replaced));
    assert!(!Arc::ptr_eq(&before, &certificates.server()));
    assert_eq!(expiry(&metrics), expiry_of(&second));
    assert_eq!((reloads(&metrics, "ok"), reloads(&metrics, "error")), (1, 0));
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_told_until_it_is_put_right() {
    let authority = Authority::new("ca");
    let first = authority.issue("weir.test");
    let directory = Directory::with(&first);
    let (certificates, metrics) = certificates(directory.config());
    let before = certificates.server();
    let expired = authority.issue_with("weir.test", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let half = || fs::write(directory.path("tls.key"), authority.issue("weir.test").key.serialize_pem()).unwrap();
    let faults: [(&str, &dyn Fn()); 4] = [
        ("does not belong", &half),
        ("holds no certificate", &|| fs::write(directory.path("tls.crt"), "").unwrap()),
        ("cannot be read", &|| fs::remove_file(directory.path("tls.crt")).unwrap()),
        ("has expired", &|| directory.write(&expired)),
    ];
    for ((explanation, fault), times) in faults.into_iter().zip(1..) {
        fault();
        let Reload::Kept(error) = certificates.reload() else { panic!("{explanation} must not be used") };
        assert!(error.to_string().contains(explanation), "{error}");
        assert!(certificates.trouble().unwrap().contains(explanation));
        assert!(Arc::ptr_eq(&before, &certificates.server()), "{explanation}");
        assert_eq!(reloads(&metrics, "error"), times);
    }
    assert_eq!(expiry(&metrics), expiry_of(&first));
    directory.write(&first);
    assert!(matches!(certificates.reload(), Reload::Unchanged));
    assert_eq!(certificates.trouble(), None);
    assert_eq!(reloads(&metrics, "ok"), 0);
}

#[test]
fn an_expired_certificate_may_be_replaced_by_one_that_expired_later() {
    let authority = Authority::new("ca");
    let expired = |year| authority.issue_with("weir.test", |params| params.not_after = date_time_ymd(year, 1, 1));
    let directory = Directory::with(&expired(2010));
    let (certificates, _) = certificates(directory.config());
    assert!(certificates.trouble().unwrap().contains("has expired"));
    directory.write(&expired(2012));
    assert!(matches!(certificates.reload(), Reload::Replaced));
    directory.write(&authority.issue("weir.test"));
    assert!(matches!(certificates.reload(), Reload::Replaced));
    assert_eq!(certificates.trouble(), None);
}

#[test]
fn the_authorities_of_clients_are_read_again_too() {
    let authority = Authority::new("ca");
    let directory = Directory::with(&authority.issue("weir.test"));
    let (certificates, _) = certificates(directory.config_for_clients_of(&authority));
    fs::write(directory.path("clients-ca.crt"), Authority::new("another").0.pem()).unwrap();
    assert!(matches!(certificates.reload(), Reload::Replaced));
    fs::write(directory.path("clients-ca.crt"), "").unwrap();
    assert!(matches!(certificates.reload(), Reload::Kept(TlsError::NoCertificate(_))));
}

#[tokio::test(start_paused = true)]
async fn files_that_are_swapped_one_by_one_are_read_when_both_are_there() {
    use std::os::unix::fs::symlink;

    let authority = Authority::new("ca");
    // As Kubernetes mounts a secret, and as certbot replaces links.
    let (first, second) = (Directory::with(&authority.issue("a.test")), Directory::with(&authority.issue("b.test")));
    let directory = Directory::new();
    for name in ["tls.crt", "tls.key"] {
        symlink(first.path(name), directory.path(name)).unwrap();
    }
    let (certificates, metrics) = certificates(directory.config());
    let certificates = Arc::new(certificates);
    let follow = tokio::spawn(Arc::clone(&certificates).follow());
    for name in ["tls.crt", "tls.key"] {
        symlink(second.path(name), directory.path("new")).unwrap();
        fs::rename(directory.path("new"), directory.path(name)).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let read_again = async {
        while reloads(&metrics, "ok") == 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read_again).await.unwrap();
    assert_eq!((reloads(&metrics, "ok"), reloads(&metrics, "error")), (1, 0));
    follow.abort();
}
