//! What lies in the directory of keys and certificates, and how it is read and written.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;

use super::authority::{self, Authority};
use super::files::Vault;
use super::kubeconfig::kubeconfig;
use super::roots::{Authorities, Root};
use super::{Identity, PkiError, Subject};

/// How the administrator is called in certificates.
pub(super) const ADMIN: &str = "kubernetes-admin";
pub(super) const SERVER_FILE: &str = "server-ca";
pub(super) const CLIENT_FILE: &str = "client-ca";
/// The key of service account tokens.
pub(super) const TOKEN_KEY_FILE: &str = "service-account.key";
/// All authorities, where they were ever changed.
const AUTHORITIES_FILE: &str = "authorities.json";

/// The files (name, content) by which another server of the cluster starts with the same keys. To
/// be written into an empty directory that [`Pki::load_or_create`] is then given.
pub fn shared_files(
    authorities: &Authorities,
    token_key_pem: &str,
) -> Result<Vec<(String, String)>, PkiError> {
    let vault = Vault::memory();
    write_authorities(&vault, authorities)?;
    vault.write_private(TOKEN_KEY_FILE, token_key_pem)?;
    Ok(vault.contents())
}

/// The authorities on file: all of them where they were ever changed, else one of each kind; new
/// ones where there are none.
pub(super) fn load_or_create_authorities(vault: &Vault, now: Timestamp) -> Result<Authorities, PkiError> {
    if let Some(text) = vault.read(AUTHORITIES_FILE)? {
        return serde_json::from_str(&text)
            .map_err(|e| PkiError::Unusable { what: format!("{AUTHORITIES_FILE}: {e}") });
    }
    let (server, client) = (vault.read_identity(SERVER_FILE)?, vault.read_identity(CLIENT_FILE)?);
    let authorities = match (server, client) {
        (Some(server), Some(client)) => return Ok(Authorities::from_identities(server, client)),
        (None, None) => Authorities::create(now)?,
        (server, client) => {
            // A start that was cut short: what is there may be in use already.
            let new = Authorities::create(now)?;
            let or = |found: Option<Identity>, made: &Root| {
                found.unwrap_or(Identity {
                    certificate_pem: made.certificate_pem.clone(),
                    key_pem: made.key_pem.clone(),
                })
            };
            Authorities::from_identities(or(server, new.signing_server()?), or(client, new.signing_client()?))
        }
    };
    write_authorities(vault, &authorities)?;
    Ok(authorities)
}

/// All of them first, then those that sign in files of their own, which older versions read.
pub(super) fn write_authorities(vault: &Vault, authorities: &Authorities) -> Result<(), PkiError> {
    if authorities.generation > 0 || vault.read(AUTHORITIES_FILE)?.is_some() {
        let text = serde_json::to_string(authorities)
            .map_err(|e| PkiError::Unusable { what: format!("{AUTHORITIES_FILE}: {e}") })?;
        vault.write_private(AUTHORITIES_FILE, &text)?;
    }
    for (file, root) in
        [(SERVER_FILE, authorities.signing_server()?), (CLIENT_FILE, authorities.signing_client()?)]
    {
        let identity =
            Identity { certificate_pem: root.certificate_pem.clone(), key_pem: root.key_pem.clone() };
        vault.write_identity(file, &identity)?;
    }
    Ok(())
}

/// The administrator's kubeconfig from the files that an earlier run left in `dir`. Makes nothing.
pub fn stored_admin_kubeconfig(dir: &Path, server: &str) -> Result<String, PkiError> {
    let missing =
        |what: &str| PkiError::Unusable { what: format!("{what} in {}: it is missing", dir.display()) };
    let vault = Vault::existing(dir);
    let ca = match vault.read(AUTHORITIES_FILE)? {
        Some(_) => load_or_create_authorities(&vault, Timestamp::now())?.server_pem(),
        None => vault.read("server-ca.crt")?.ok_or_else(|| missing("server-ca.crt"))?,
    };
    let admin = vault.read_identity("admin")?.ok_or_else(|| missing("admin.crt"))?;
    Ok(kubeconfig(server, &ca, ADMIN, &admin))
}

pub(super) fn load_or_create_key(vault: &Vault, file: &str) -> Result<KeyPair, PkiError> {
    let bad = |source| PkiError::Certificate { what: file.to_owned(), source };
    if let Some(pem) = vault.read(file)? {
        return KeyPair::from_pem(&pem).map_err(bad);
    }
    let key = KeyPair::generate().map_err(bad)?;
    vault.write_private(file, &key.serialize_pem())?;
    Ok(key)
}

pub(super) fn load_or_issue_admin(
    vault: &Vault,
    authority: &Authority,
    (now, life): (Timestamp, SignedDuration),
) -> Result<Identity, PkiError> {
    if let Some(found) = vault.read_identity("admin")?
        && authority.signed(&found)?
        && !authority::expires_soon(&found.certificate_pem, now, life)?
    {
        return Ok(found);
    }
    issue_admin(vault, authority, (now, life))
}

pub(super) fn issue_admin(
    vault: &Vault,
    authority: &Authority,
    (now, life): (Timestamp, SignedDuration),
) -> Result<Identity, PkiError> {
    let subject = Subject::Client { user: ADMIN, groups: &[crate::auth::MASTERS] };
    let identity = authority.issue(&subject, now, life)?;
    vault.write_identity("admin", &identity)?;
    Ok(identity)
}
