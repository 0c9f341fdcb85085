//! From when to when a certificate is valid.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

/// The time in which a certificate may be shown, in whole seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Validity {
    /// What stands in `certificate`.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let (Verdict::NotBefore(not_before), Verdict::NotAfter(not_after)) =
            (verdict(&certificate, 0)?, verdict(&certificate, u64::MAX)?)
        else {
            return Err(CertificateError::BadEncoding.into());
        };
        Ok(Self { not_before, not_after })
    }

    /// Whether its time is over at `now`.
    pub(super) const fn is_over(self, now: u64) -> bool {
        self.not_after < now
    }

    /// Whether its time has come at `now`.
    pub(super) const fn has_begun(self, now: u64) -> bool {
        self.not_before <= now
    }
}

/// The time of day, in whole seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

enum Verdict {
    NotBefore(u64),
    NotAfter(u64),
}

/// What verification says at the beginning and at the end of time: that the certificate is not valid yet, and that it
/// has expired, each with the time. The library that reads certificates tells its reading in no other way, and a
/// second reader would be one more thing that could be wrong about them. It looks at the time before anything else.
fn verdict(certificate: &ParsedCertificate<'_>, seconds: u64) -> Result<Verdict, Error> {
    let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let nobody = RootCertStore::empty();
    match verify_server_cert_signed_by_trust_anchor(certificate, &nobody, &[], time, &[]) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
            Ok(Verdict::NotBefore(not_before.as_secs()))
        }
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Ok(Verdict::NotAfter(not_after.as_secs()))
        }
        Err(other) => Err(other),
        Ok(()) => Err(CertificateError::BadEncoding.into()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn validity_of(change: impl FnOnce(&mut CertificateParams)) -> Validity {
        let mut params = CertificateParams::new(vec!["weir.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(2033, 5, 18);
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Validity::of(certificate.der()).unwrap()
    }

    #[test]
    fn is_read_from_certificates_of_every_kind() {
        let expected = Validity { not_before: 999_993_600, not_after: 1_999_987_200 };
        assert_eq!(validity_of(|_| {}), expected);
        // `openssl req -x509` makes authorities, and people use them as servers' certificates.
        assert_eq!(validity_of(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), expected);
        let for_clients = vec![ExtendedKeyUsagePurpose::ClientAuth];
        assert_eq!(validity_of(|params| params.extended_key_usages = for_clients), expected);
        let late = validity_of(|params| params.not_after = date_time_ymd(9999, 12, 31));
        assert_eq!(late.not_after, 253_402_214_400);
    }

    #[test]
    fn the_last_second_is_part_of_it() {
        let validity = Validity { not_before: 10, not_after: 20 };
        assert!(!validity.has_begun(9) && validity.has_begun(10));
        assert!(!validity.is_over(20) && validity.is_over(21));
    }

    #[test]
    fn what_is_no_certificate_has_none() {
        assert!(Validity::of(&CertificateDer::from(b"no certificate".to_vec())).is_err());
    }
}
