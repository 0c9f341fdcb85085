//! Certificates out of PEM: authorities to trust, and who to be. Errors are sentences that name the file and the fault.

use reqwest::{Certificate, Identity};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::failure::root_cause;
use crate::config::{Authorities, ClientCertificate};

/// How an encrypted key begins; its section is none that the parser knows.
const ENCRYPTED_KEY: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// The authorities in a file.
pub(super) fn authorities(authorities: &Authorities) -> Result<Vec<Certificate>, String> {
    let file = authorities.file.display();
    let certificates = Certificate::from_pem_bundle(&authorities.pem)
        .map_err(|error| format!("`ca_file` {file} is not PEM: {}", root_cause(&error)))?;
    if certificates.is_empty() {
        return Err(format!("`ca_file` {file} holds no certificate"));
    }
    Ok(certificates)
}

/// Who to be by a certificate and its key, which belong together.
pub(super) fn identity(client: &ClientCertificate) -> Result<Identity, String> {
    let (cert_file, key_file) = (client.cert_file.display(), client.key_file.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&client.certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("`client_cert_file` {cert_file} is damaged PEM"))?;
    if chain.is_empty() {
        return Err(format!("`client_cert_file` {cert_file} holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(|error| match error {
        pem::Error::NoItemsFound if holds(&client.key, ENCRYPTED_KEY) => {
            format!("`client_key_file` {key_file} is encrypted; decrypt it with `openssl pkey`")
        }
        pem::Error::NoItemsFound => format!("`client_key_file` {key_file} holds no private key"),
        // What is wrong in detail is not repeated: a key may stand in it.
        _ => format!("`client_key_file` {key_file} is damaged PEM"),
    })?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("`client_key_file` {key_file} is not the key of the certificate in {cert_file}")
        }
        rustls::Error::InvalidCertificate(reason) => {
            format!("`client_cert_file` {cert_file} holds a certificate that cannot be used: {reason}")
        }
        error => format!("`client_key_file` {key_file} holds a key that cannot be used: {error}"),
    })?;
    let both = [&*client.certificate, b"\n", &*client.key].concat();
    Identity::from_pem(&both).map_err(|error| format!("`client_cert_file` {cert_file}: {}", root_cause(&error)))
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(certificate: &str, key: &str) -> Result<Identity, String> {
        identity(&ClientCertificate {
            cert_file: "/etc/c.crt".into(),
            key_file: "/etc/c.key".into(),
            certificate: certificate.as_bytes().into(),
            key: key.as_bytes().into(),
        })
    }

    fn issued() -> (String, String) {
        let issued = rcgen::generate_simple_self_signed(["client.test".to_owned()]).unwrap();
        (issued.cert.pem(), issued.signing_key.serialize_pem())
    }

    #[test]
    fn an_unusable_ca_file_is_named() {
        let empty = Authorities { file: "/etc/ca.pem".into(), pem: b"no certificate in here".as_slice().into() };
        assert_eq!(authorities(&empty).unwrap_err(), "`ca_file` /etc/ca.pem holds no certificate");
    }

    #[test]
    fn certificate_and_key_belong_together() {
        let ((certificate, key), (_, other)) = (issued(), issued());
        assert!(client(&certificate, &key).is_ok());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let torn = &key[..key.len() / 2];
        for (certificate, key, fault) in [
            (
                certificate.as_str(),
                other.as_str(),
                "`client_key_file` /etc/c.key is not the key of the certificate in /etc/c.crt",
            ),
            (&certificate, &certificate, "`client_key_file` /etc/c.key holds no private key"),
            (&certificate, encrypted, "`client_key_file` /etc/c.key is encrypted; decrypt it with `openssl pkey`"),
            (&certificate, torn, "`client_key_file` /etc/c.key is damaged PEM"),
            (&key, &key, "`client_cert_file` /etc/c.crt holds no certificate"),
            ("", &key, "`client_cert_file` /etc/c.crt holds no certificate"),
        ] {
            assert_eq!(client(certificate, key).unwrap_err(), fault);
        }
    }
}
