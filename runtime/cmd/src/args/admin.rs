//! Commands to a running server: tokens, members, certificates.

use clap::{Args, Subcommand, ValueEnum};

use super::DataDirArgs;

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

/// A duration as people write it: `90s`, `30m`, `24h`, `7d`, or seconds.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30m, 24h or 7d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(std::time::Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [("0", 0), ("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(std::time::Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "h", "1w", "1.5h", "-1h", "99999999999999999999h", "10000000000000000d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
