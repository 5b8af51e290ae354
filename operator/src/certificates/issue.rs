//! Makes authorities and leaves (P-256), and reads them. Times are seconds since 1970.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Clocks of other machines may be behind: certificates hold from so long before they are made.
const BEFORE: u64 = 3600;

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A key is shown to nobody.
impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub fingerprint: String,
    /// From when it holds.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// Whom it is for.
    pub names: Vec<String>,
    /// Its public key, as bytes.
    public_key: Vec<u8>,
}

/// Why a certificate cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The library refuses.
    #[error("a certificate cannot be made: {0}")]
    Make(String),
    /// Not a certificate, or not one that is needed here.
    #[error("{what} cannot be read: {why}")]
    Read {
        /// What should be one.
        what: &'static str,
        /// Why it is none.
        why: String,
    },
}

fn make(error: rcgen::Error) -> IssueError {
    IssueError::Make(error.to_string())
}

fn params(names: &[String], now: i64, life: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(make)?;
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let now = u64::try_from(now).unwrap_or_default();
    params.not_before = at(now.saturating_sub(BEFORE));
    params.not_after = at(now.saturating_add(life.as_secs()));
    Ok(params)
}

/// A new authority.
///
/// # Errors
/// When the library refuses.
pub fn authority(now: i64, life: Duration) -> Result<Pair, IssueError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
    let mut params = params(&[], now, life)?;
    // A name of its own for each: a verifier is never tempted by the key of another.
    params.distinguished_name.push(DnType::CommonName, format!("walstorage webhook {now}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(make)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new leaf of an authority for these names (host names and addresses); it ends with the authority at the latest.
///
/// # Errors
/// When the authority cannot be read, or the library refuses.
pub fn leaf(authority: &Pair, names: &[String], now: i64, life: Duration) -> Result<Pair, IssueError> {
    let left = read(&authority.certificate)?.not_after.saturating_sub(now);
    let life = life.min(Duration::from_secs(u64::try_from(left).unwrap_or_default()));
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key).map_err(make)?)
        .map_err(make)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
    let mut params = params(names, now, life)?;
    params.distinguished_name.push(DnType::CommonName, names.first().map_or("walstorage webhook", String::as_str));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(make)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The certificates of a PEM text, each as a text of its own.
#[must_use]
pub fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END).map(str::trim).filter(|part| part.ends_with(END));
    parts.map(|part| format!("{part}\n")).collect()
}

fn der(pem: &str) -> Result<CertificateDer<'static>, IssueError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| IssueError::Read { what: "a certificate", why: error.to_string() })
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// When there is none.
pub fn read(pem: &str) -> Result<Certificate, IssueError> {
    let der = der(pem)?;
    read_der(&der)
}

/// Reads a certificate as it comes over the wire.
///
/// # Errors
/// When it is none.
pub fn read_der(der: &[u8]) -> Result<Certificate, IssueError> {
    let unreadable = |why: String| IssueError::Read { what: "a certificate", why };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    });
    Ok(Certificate {
        fingerprint: Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        names: names.collect(),
        public_key: parsed.public_key().raw.to_vec(),
    })
}

/// Whether a private key (PEM) is the one of a certificate.
#[must_use]
pub fn belongs(key: &str, certificate: &Certificate) -> bool {
    KeyPair::from_pem(key).is_ok_and(|key| key.subject_public_key_info() == certificate.public_key)
}

/// Whether an API server that trusts the bundle would talk to who serves this leaf, now.
///
/// # Errors
/// A sentence that says why not.
pub fn verify(leaf: &str, bundle: &str, now: i64) -> Result<(), String> {
    let facts = read(leaf).map_err(|error| error.to_string())?;
    let name = facts.names.first().ok_or("the certificate is for nobody")?;
    let name = ServerName::try_from(name.as_str()).map_err(|error| error.to_string())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots(bundle)?),
        Arc::new(rustls::crypto::ring::default_provider()),
    );
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
    let leaf = der(leaf).map_err(|error| error.to_string())?;
    verifier.verify_server_cert(&leaf, &[], &name, &[], now).map(|_| ()).map_err(|error| error.to_string())
}

/// The authorities of a bundle.
///
/// # Errors
/// A sentence, when one cannot be read or there is none.
pub fn roots(bundle: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate in the bundle".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const NOW: i64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["walstorage-webhook.walstorage.svc".to_owned(), "127.0.0.1".to_owned()]
    }

    #[test]
    fn a_leaf_is_for_its_names_and_ends_with_its_authority() {
        let ca = authority(NOW, Duration::from_secs(10 * DAY)).unwrap();
        let leaf = leaf(&ca, &names(), NOW, Duration::from_secs(30 * DAY)).unwrap();
        let read = read(&leaf.certificate).unwrap();
        assert_eq!(read.names, names());
        assert_eq!((read.not_before, read.not_after), (NOW - 3600, NOW + 10 * 86_400));
        assert!(belongs(&leaf.key, &read) && !belongs(&ca.key, &read));
        assert!(!format!("{leaf:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_leaf_is_verified_against_the_bundle_and_the_time() {
        let (old, new) =
            (authority(NOW, Duration::from_secs(DAY)).unwrap(), authority(NOW + 1, Duration::from_secs(DAY)).unwrap());
        let leaf = leaf(&new, &names(), NOW, Duration::from_secs(100)).unwrap().certificate;
        assert_eq!(verify(&leaf, &new.certificate, NOW), Ok(()));
        assert_eq!(verify(&leaf, &format!("{}{}", old.certificate, new.certificate), NOW), Ok(()));
        assert!(verify(&leaf, &old.certificate, NOW).is_err(), "another authority");
        assert!(verify(&leaf, &new.certificate, NOW + 101).is_err(), "too late");
        assert!(verify(&leaf, "", NOW).is_err(), "no authority");
        assert!(verify("x", &new.certificate, NOW).is_err(), "no certificate");
    }

    #[test]
    fn a_bundle_is_split_into_its_certificates() {
        let (a, b) =
            (authority(NOW, Duration::from_secs(DAY)).unwrap(), authority(NOW, Duration::from_secs(DAY)).unwrap());
        let parts = split(&format!("{}\n  {}", a.certificate, b.certificate));
        let same = |part: &str, pair: &Pair| read(part).unwrap() == read(&pair.certificate).unwrap();
        assert_eq!(parts.len(), 2);
        assert!(same(&parts[0], &a) && same(&parts[1], &b));
        assert_eq!(split("nothing"), Vec::<String>::new());
    }
}
