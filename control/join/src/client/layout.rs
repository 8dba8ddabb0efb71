//! What a machine keeps of having joined: one directory (`tls/` in the data directory) that appears
//! whole, by one rename, or not at all.
//!
//! ```text
//! machine.key            the machine's key, never sent
//! machine-server.crt     its certificate as a server      machine-node.crt  as a node
//! cluster.json           the cluster: trust, servers, settings
//! server-ca.crt …        authorities (a server's: with keys, see `sampan_apiserver::pki`)
//! seal.keys              the store's keys, where a server joined one that seals values
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use sampan_apiserver::pki::{Identity, MachineRole, Pki};
use serde::{Deserialize, Serialize};

use super::trust::certificate_subject;
use crate::wire::{Membership, RoleCertificate};
use crate::{JoinError, MachineKey, Member, files};

const CLUSTER_FILE: &str = "cluster.json";
/// The store's keys as a joining server got them.
const SEAL_FILE: &str = "seal.keys";

/// A machine that is part of a cluster, as its directory tells.
#[derive(Debug)]
pub struct Joined {
    /// The directory.
    pub dir: PathBuf,
    /// The machine's name.
    pub name: String,
    /// What it is.
    pub roles: Vec<MachineRole>,
    /// Its key.
    pub key: MachineKey,
    /// A certificate (PEM) for each role, over the key.
    pub certificates: Vec<RoleCertificate>,
    /// How long certificates live here.
    pub life: SignedDuration,
    /// Which cluster; empty for the server that began it.
    pub cluster_id: String,
    /// Which generation of its authorities is trusted.
    pub generation: u64,
    /// The authorities of servers (the API's certificates), PEM.
    pub server_pem: String,
    /// The authorities of machines, PEM: what connections between machines are checked against.
    pub client_pem: String,
    /// The servers as they were last heard of.
    pub servers: Vec<Member>,
    /// The cluster's settings.
    pub settings: BTreeMap<String, String>,
}

impl Joined {
    /// The certificate for a role, with the key.
    pub fn identity(&self, role: MachineRole) -> Option<Identity> {
        let found = self.certificates.iter().find(|certificate| certificate.role == role)?;
        Some(Identity { certificate_pem: found.pem.clone(), key_pem: self.key.pem() })
    }

    /// The file with the store's keys, if the machine is a server that joined others.
    pub fn sealing_keys(&self) -> Option<PathBuf> {
        Some(self.dir.join(SEAL_FILE)).filter(|path| path.exists())
    }

    /// Takes over what a server answered, and writes it down.
    pub(crate) fn update(&mut self, answer: Membership) -> Result<(), JoinError> {
        check(&answer.certificates, &self.name, &self.roles, &self.key)
            .map_err(|what| JoinError::Damaged { path: self.dir.clone(), what })?;
        self.certificates = answer.certificates;
        self.life = SignedDuration::from_secs(answer.life_seconds);
        self.generation = answer.authority.generation;
        self.server_pem = answer.authority.server_pem;
        self.client_pem = answer.authority.client_pem;
        self.servers = answer.servers;
        self.settings = answer.settings;
        self.write()
    }

    /// Writes everything but the key; each file whole.
    pub(crate) fn write(&self) -> Result<(), JoinError> {
        for certificate in &self.certificates {
            files::write(&self.dir.join(certificate_file(certificate.role)), &certificate.pem)?;
        }
        if !self.roles.contains(&MachineRole::Server) {
            files::write(&self.dir.join("server-ca.crt"), &self.server_pem)?;
            files::write(&self.dir.join("client-ca.crt"), &self.client_pem)?;
        }
        let cluster = Cluster {
            name: self.name.clone(),
            roles: self.roles.clone(),
            cluster_id: self.cluster_id.clone(),
            life_seconds: self.life.as_secs(),
            generation: self.generation,
            server_pem: self.server_pem.clone(),
            client_pem: self.client_pem.clone(),
            servers: self.servers.clone(),
            settings: self.settings.clone(),
        };
        let path = self.dir.join(CLUSTER_FILE);
        let text = serde_json::to_string_pretty(&cluster)
            .map_err(|error| JoinError::Damaged { path: path.clone(), what: error.to_string() })?;
        files::write(&path, &text)
    }
}

#[derive(Serialize, Deserialize)]
struct Cluster {
    name: String,
    roles: Vec<MachineRole>,
    cluster_id: String,
    life_seconds: i64,
    generation: u64,
    server_pem: String,
    client_pem: String,
    servers: Vec<Member>,
    settings: BTreeMap<String, String>,
}

/// What the directory tells; `None` where the machine has not joined by it.
///
/// Errors: a file is missing, damaged, or of another machine.
pub fn joined(dir: &Path) -> Result<Option<Joined>, JoinError> {
    let path = dir.join(CLUSTER_FILE);
    let Some(text) = files::read(&path)? else { return Ok(None) };
    let cluster: Cluster = serde_json::from_str(&text)
        .map_err(|error| JoinError::Damaged { path: path.clone(), what: error.to_string() })?;
    if files::read(&dir.join(crate::KEY_FILE))?.is_none() {
        return Err(JoinError::Damaged { path: dir.join(crate::KEY_FILE), what: "is missing".to_owned() });
    }
    let key = MachineKey::load_or_create(dir)?;
    let mut certificates = Vec::new();
    for role in &cluster.roles {
        let path = dir.join(certificate_file(*role));
        let missing = || JoinError::Damaged { path: path.clone(), what: "is missing".to_owned() };
        certificates.push(RoleCertificate { role: *role, pem: files::read(&path)?.ok_or_else(missing)? });
    }
    check(&certificates, &cluster.name, &cluster.roles, &key)
        .map_err(|what| JoinError::Damaged { path: dir.to_owned(), what })?;
    Ok(Some(Joined {
        dir: dir.to_owned(),
        name: cluster.name,
        roles: cluster.roles,
        key,
        certificates,
        life: SignedDuration::from_secs(cluster.life_seconds),
        cluster_id: cluster.cluster_id,
        generation: cluster.generation,
        server_pem: cluster.server_pem,
        client_pem: cluster.client_pem,
        servers: cluster.servers,
        settings: cluster.settings,
    }))
}

/// What a server needs before its store is open: a key, and certificates from the authorities that it
/// holds itself, in the directory of `pki`. The first server of a cluster comes to them in this way,
/// and every server whose name or roles have changed; what is there already and fits stays. Names are
/// to be written down once the store is open ([`crate::JoinService::record_self`]).
pub fn prepare_server(dir: &Path, pki: &Pki, name: &str, roles: &[MachineRole]) -> Result<Joined, JoinError> {
    let found = joined(dir)?;
    if let Some(found) = &found
        && (found.name != name || found.roles != roles)
    {
        tracing::info!(was = found.name, name, "this server's name or roles have changed");
    }
    let trust = pki.trust().borrow().clone();
    let (cluster_id, servers, settings) = match found {
        Some(found) if found.name == name && found.roles == roles => return Ok(found),
        Some(found) => (found.cluster_id, found.servers, found.settings),
        None => Default::default(),
    };
    let key = MachineKey::load_or_create(dir)?;
    let joined = Joined {
        certificates: issue(pki, &key, name, roles)?,
        dir: dir.to_owned(),
        name: name.to_owned(),
        roles: roles.to_vec(),
        key,
        life: pki.life(),
        cluster_id,
        generation: trust.generation,
        server_pem: trust.server_pem,
        client_pem: trust.client_pem,
        servers,
        settings,
    };
    joined.write()?;
    Ok(joined)
}

/// Certificates for this machine from authorities that it holds itself.
pub(crate) fn issue(
    pki: &Pki,
    key: &MachineKey,
    name: &str,
    roles: &[MachineRole],
) -> Result<Vec<RoleCertificate>, JoinError> {
    let request = key.request()?;
    let issue = |role: &MachineRole| {
        Ok(RoleCertificate { role: *role, pem: pki.issue_machine(*role, name, &request)? })
    };
    roles.iter().map(issue).collect()
}

/// Where a machine prepares to join: beside the directory that it will have.
pub(crate) fn staging(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".joining");
    dir.with_file_name(name)
}

/// Writes everything into the directory of preparation, and gives it its name.
pub(crate) fn settle(
    dir: &Path,
    key: MachineKey,
    (name, roles): (&str, &[MachineRole]),
    answer: Membership,
) -> Result<Joined, JoinError> {
    let staging = staging(dir);
    let damaged = |what| JoinError::Damaged { path: staging.clone(), what };
    check(&answer.certificates, name, roles, &key).map_err(damaged)?;
    if let Some(shared) = &answer.shared {
        for (name, text) in &shared.files {
            // The names are a server's, which is trusted with all of this; a path is none.
            if name.contains('/') || name.starts_with('.') {
                return Err(damaged(format!("the server named a file {name:?}")));
            }
            files::write(&staging.join(name), text)?;
        }
        if let Some(keys) = &shared.sealing_keys {
            files::write(&staging.join(SEAL_FILE), keys)?;
        }
    }
    let mut joined = Joined {
        dir: staging.clone(),
        name: name.to_owned(),
        roles: roles.to_vec(),
        key,
        certificates: answer.certificates,
        life: SignedDuration::from_secs(answer.life_seconds),
        cluster_id: answer.authority.cluster_id,
        generation: answer.authority.generation,
        server_pem: answer.authority.server_pem,
        client_pem: answer.authority.client_pem,
        servers: answer.servers,
        settings: answer.settings,
    };
    joined.write()?;
    files::rename(&staging, dir)?;
    dir.clone_into(&mut joined.dir);
    Ok(joined)
}

/// That there is a certificate for each role, over this key and with this name.
fn check(
    certificates: &[RoleCertificate],
    name: &str,
    roles: &[MachineRole],
    key: &MachineKey,
) -> Result<(), String> {
    for role in roles {
        let found = certificates.iter().find(|certificate| certificate.role == *role);
        let fits = found
            .and_then(|certificate| certificate_subject(&certificate.pem))
            .is_some_and(|(user, over)| user == role.user(name) && over == key.id());
        if !fits {
            return Err(format!("there is no certificate for {} over this machine's key", role.user(name)));
        }
    }
    Ok(())
}

fn certificate_file(role: MachineRole) -> &'static str {
    match role {
        MachineRole::Server => "machine-server.crt",
        MachineRole::Node => "machine-node.crt",
    }
}
