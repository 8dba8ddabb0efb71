//! What an S3 server's certificate must chain to.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::BackupError;

/// Trusts the certificates of `ca` where that is given, otherwise what the machine trusts.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, BackupError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add_file(&mut roots, path)?,
        None => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(BackupError::setting(
                    "this machine has no trusted certificates; give the server's with --snapshot-s3-ca",
                ));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BackupError::setting(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), BackupError> {
    let text = std::fs::read(path).map_err(|source| BackupError::io("reading", &path.display(), source))?;
    let unusable = |why: String| BackupError::setting(format!("{}: {why}", path.display()));
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        found += 1;
    }
    if found == 0 { Err(unusable("there is no certificate in it".into())) } else { Ok(()) }
}
