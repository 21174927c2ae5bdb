//! The authority itself: made once per data directory, loaded ever after.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_env::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};

use super::provider;

const KEY_FILE: &str = "ca-key.pem";
const CERTIFICATE_FILE: &str = "ca.pem";
/// The names that every installation answers to.
const LOCAL_NAMES: [&str; 4] = ["localhost", "*.localhost", "127.0.0.1", "::1"];
const AUTHORITY_YEARS: i32 = 20;
/// The longest life that every client accepts in a server's certificate is 825 days; whole years
/// stay below it.
const SERVER_YEARS: i32 = 2;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others; make it private with: chmod 600 {path}")]
    KeyIsExposed { path: PathBuf },
    #[error("the PEM text cannot be used: {0}")]
    Pem(String),
    #[error("a certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A certificate authority that signs for this installation only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Loads the authority of `directory`, or makes it. The directory is created if it is not
    /// there.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, TlsError> {
        let in_file = |path: &Path, source| TlsError::File {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(|error| in_file(directory, error))?;
        let (key_path, certificate_path) =
            (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        let key = match std::fs::read_to_string(&key_path) {
            Ok(pem) => {
                let metadata = key_path
                    .metadata()
                    .map_err(|error| in_file(&key_path, error))?;
                if metadata.permissions().mode() & 0o077 != 0 {
                    return Err(TlsError::KeyIsExposed { path: key_path });
                }
                KeyPair::from_pem(&pem)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                write_new(&key_path, &key.serialize_pem(), 0o600)
                    .map_err(|error| in_file(&key_path, error))?;
                key
            }
            Err(error) => return Err(in_file(&key_path, error)),
        };
        let params = authority_params(&key, now);
        let certificate_pem = match std::fs::read_to_string(&certificate_path) {
            Ok(pem) => pem,
            // A process that died between the two files left only the key, which is enough.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pem = params.self_signed(&key)?.pem();
                write_new(&certificate_path, &pem, 0o644)
                    .map_err(|error| in_file(&certificate_path, error))?;
                pem
            }
            Err(error) => return Err(in_file(&certificate_path, error)),
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
        })
    }

    /// What clients must trust (`AWS_CA_BUNDLE`, `--cacert`).
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The TLS settings of a server of the local names and of `names` (host names and addresses).
    pub fn server_config(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let mut subjects: Vec<String> = LOCAL_NAMES.iter().map(|name| (*name).to_owned()).collect();
        subjects.extend(names.iter().cloned());
        subjects.sort_unstable();
        subjects.dedup();
        let mut params = CertificateParams::new(subjects)?;
        params.distinguished_name.push(DnType::CommonName, "Gantry");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let (year, month) = year_and_month(now);
        // From the month before, so that a clock that is behind still accepts it.
        params.not_before = match month {
            1 => rcgen::date_time_ymd(year - 1, 12, 1),
            _ => rcgen::date_time_ymd(year, month - 1, 1),
        };
        params.not_after = rcgen::date_time_ymd(year + SERVER_YEARS, month, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Everything but the validity follows from the key, so a loaded authority signs under the very
/// name that its stored certificate has.
fn authority_params(key: &KeyPair, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let fingerprint = hex::encode(Sha256::digest(key.public_key_raw()));
    let name = format!("Gantry CA {}", fingerprint.get(..8).unwrap_or_default());
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let (year, _) = year_and_month(now);
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + AUTHORITY_YEARS, 1, 1);
    params
}

/// Read from the text form; a clock beyond the years that certificates know gets the nearest.
fn year_and_month(now: Timestamp) -> (i32, u8) {
    let text = now.to_string();
    let mut parts = text.split('-');
    let year = parts
        .next()
        .and_then(|year| year.parse().ok())
        .unwrap_or(2026);
    let month = parts
        .next()
        .and_then(|month| month.parse().ok())
        .unwrap_or(1);
    (i32::clamp(year, 1971, 9900), u8::clamp(month, 1, 12))
}

/// Under another name first, and synced, so that the file is whole whenever it is there.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    #[test]
    fn an_authority_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Authority::open(&directory.path().join("tls"), NOW).unwrap();
        let key_path = directory.path().join("tls").join(KEY_FILE);
        assert_eq!(
            key_path.metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = Authority::open(&directory.path().join("tls"), NOW).unwrap();
        assert_eq!(first.certificate_pem(), again.certificate_pem());
        assert!(super::super::client_config(first.certificate_pem()).is_ok());
        std::fs::set_permissions(&key_path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Authority::open(&directory.path().join("tls"), NOW);
        assert!(matches!(refused, Err(TlsError::KeyIsExposed { .. })));
    }

    #[test]
    fn a_text_without_certificates_is_no_authority() {
        assert!(super::super::client_config("").is_err());
        assert!(
            super::super::client_config(
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"
            )
            .is_err()
        );
    }
}
