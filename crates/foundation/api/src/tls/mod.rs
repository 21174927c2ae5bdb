//! Gantry's own certificate authority, and the TLS settings of both ends.
//!
//! The authority's key and certificate are the only files: `ca-key.pem`, which its owner alone
//! may read, and `ca.pem`, which is handed to whoever shall trust this installation. The server's
//! certificate is made anew at every start for the names it serves, so no key of a server lies on
//! a disk and no file is ever out of date. One cryptography provider (ring) serves both ends.
//! Keys are drawn by ring itself: no seed may ever choose one.

mod authority;

use std::sync::Arc;

pub use authority::{Authority, TlsError};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The TLS settings of a client that trusts exactly the authorities in `ca_pem`.
pub fn client_config(ca_pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|error| TlsError::Pem(error.to_string()))?)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Pem("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
