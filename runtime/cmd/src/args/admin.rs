//! Commands to a running server: tokens, members, certificates.

use clap::{Args, Subcommand, ValueEnum};

use super::DataDirArgs;
use super::values::duration;

/// `sampan token`.
#[derive(Args, Debug, Clone)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it: it is not kept readable anywhere.
    Create {
        /// How long it is good for: 30m, 24h, 7d; 0 for ever
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
        ttl: std::time::Duration,
        /// What may be joined with it
        #[arg(long, value_enum, default_value_t = TokenRole::Agent)]
        role: TokenRole,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// List the tokens, without their secrets.
    List,
    /// Make tokens useless, by their ids.
    #[command(alias = "delete")]
    Revoke {
        /// Ids, as 'sampan token list' shows them.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Nodes.
    Agent,
    /// Servers, which hold the database and the cluster's keys.
    Server,
}

/// `sampan member`.
#[derive(Args, Debug, Clone)]
pub(crate) struct MemberArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    #[command(subcommand)]
    pub(crate) command: MemberCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MemberCommand {
    /// List the servers that hold the database.
    List,
    /// Remove a server for good; it cannot come back under its key.
    Remove {
        /// Its name or id.
        member: String,
    },
    /// Give a learner a vote.
    Promote {
        /// Its name or id.
        member: String,
    },
}

/// `sampan node`.
#[derive(Args, Debug, Clone)]
pub(crate) struct NodeAdminArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NodeCommand {
    /// Remove a node's machine for good: its key is refused at once, and it cannot come back under it.
    Remove {
        /// Its name.
        node: String,
    },
}

/// `sampan certificate`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CertificateArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    #[command(subcommand)]
    pub(crate) command: CertificateCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Begin, or go on with, the rotation of the cluster's authorities; nothing goes down meanwhile.
    RotateCa,
    /// Tell how far a rotation is.
    Status,
}
