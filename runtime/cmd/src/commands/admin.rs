//! `sampan token`, `member` and `certificate`: asked of the server that runs on this machine.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;
use sampan_join::{AdminClient, JoinError, MemberState, NewToken, RotationStatus, TokenInfo, TokenRole};
use sampan_store::Level;

use crate::args::{
    CertificateArgs, CertificateCommand, MemberArgs, MemberCommand, NodeAdminArgs, NodeCommand, TokenArgs,
    TokenCommand,
};
use crate::data_dir;
use crate::error::{CommandError, Doing};
use crate::server::SERVER_FILE;

/// A client for the server whose data directory this is, and that directory.
pub(super) fn client(given: Option<PathBuf>) -> Result<(AdminClient, PathBuf), CommandError> {
    let data_dir = data_dir::existing(given)?;
    let missing = || {
        format!(
            "{} is not that of a server that has run; run this on a server, or name its directory with --data-dir",
            data_dir.display()
        )
    };
    let url = std::fs::read_to_string(data_dir.join(SERVER_FILE)).doing(missing)?;
    let kubeconfig =
        sampan_apiserver::pki::stored_admin_kubeconfig(&data_dir.join("tls"), url.trim()).doing(missing)?;
    Ok((AdminClient::from_kubeconfig(&kubeconfig).doing(missing)?, data_dir))
}

fn block<T>(work: impl Future<Output = Result<T, JoinError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "threads cannot be started".to_owned())?;
    runtime.block_on(work).doing(|| "the server did not do it".to_owned())
}

pub(super) fn token(args: TokenArgs) -> Result<ExitCode, CommandError> {
    let (client, _) = client(args.data.data_dir)?;
    let text = match args.command {
        TokenCommand::Create { ttl, role, description } => {
            let role = match role {
                crate::args::TokenRole::Agent => TokenRole::Agent,
                crate::args::TokenRole::Server => TokenRole::Server,
            };
            let wanted = NewToken { role, ttl_seconds: Some(ttl.as_secs()), description };
            format!("{}\n", block(client.create_token(&wanted))?.token)
        }
        TokenCommand::List => tokens(&block(client.tokens())?, Timestamp::now()),
        TokenCommand::Revoke { ids } => {
            let mut text = String::new();
            for id in ids {
                let gone = block(client.revoke_token(&id))?;
                // Writing to a String cannot fail.
                let _ = writeln!(text, "token {} is of no use any more", gone.id);
            }
            text
        }
    };
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn tokens(tokens: &[TokenInfo], now: Timestamp) -> String {
    let mut text = format!("{:<12} {:<8} {:<22} {}\n", "ID", "ROLE", "EXPIRES", "DESCRIPTION");
    for token in tokens {
        let expires = match token.expires.map(Timestamp::from_second) {
            None => "never".to_owned(),
            Some(Ok(at)) if at <= now => "expired".to_owned(),
            Some(Ok(at)) => at.to_string(),
            Some(Err(_)) => "unknown".to_owned(),
        };
        let role = match token.role {
            TokenRole::Agent => "agent",
            TokenRole::Server => "server",
        };
        let line = format!("{:<12} {:<8} {:<22} {}", token.id, role, expires, token.description);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

pub(super) fn member(args: MemberArgs) -> Result<ExitCode, CommandError> {
    let (client, _) = client(args.data.data_dir)?;
    let text = match args.command {
        MemberCommand::List => members(&block(client.members())?),
        MemberCommand::Remove { member } => {
            let gone = block(client.remove_member(&member))?;
            format!("{} is removed; it cannot come back under its key\n", gone.name)
        }
        MemberCommand::Promote { member } => {
            let voter = block(client.promote_member(&member))?;
            format!("{} has a vote\n", voter.name)
        }
    };
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn node(args: NodeAdminArgs) -> Result<ExitCode, CommandError> {
    let (client, _) = client(args.data.data_dir)?;
    let NodeCommand::Remove { node } = args.command;
    let gone = block(client.remove_node(&node))?;
    super::print(&format!(
        "{} is removed; it cannot come back under its key ('kubectl delete node {}' forgets its pods, too)\n",
        gone.name, gone.name
    ));
    Ok(ExitCode::SUCCESS)
}

fn members(members: &[MemberState]) -> String {
    let mut text = format!(
        "{:<18} {:<24} {:<15} {:<10} {:<8} {:<12} {}\n",
        "ID", "NAME", "ROLE", "REACHABLE", "LAG", "LEVEL", "ADDRESS"
    );
    for state in members {
        let role = match (state.voter, state.leader) {
            (_, true) => "voter, leader",
            (true, false) => "voter",
            (false, false) => "learner",
        };
        let reachable = match state.reachable {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let lag = state.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
        let id = sampan_join::format_member_id(state.member.id);
        let addresses = state.member.addresses.join(",");
        let _ = writeln!(
            text,
            "{id:<18} {:<24} {role:<15} {reachable:<10} {lag:<8} {:<12} {addresses}",
            state.member.name,
            understood(state)
        );
    }
    text.push_str(&group_level(members));
    text
}

/// The newest level that a member understands.
fn understood(state: &MemberState) -> String {
    match (state.level, state.group_level) {
        (Some(level), Some(group)) if level < group => format!("{level}, too old"),
        (Some(level), _) => level.to_string(),
        (None, _) => "-".to_owned(),
    }
}

/// The level that the group is at, and what keeps it there.
fn group_level(members: &[MemberState]) -> String {
    let Some(group) = members.iter().find_map(|state| state.group_level) else { return String::new() };
    let at = format!("The cluster is at level {}", Level::of_number(group));
    match members.iter().filter_map(|state| state.level).max() {
        Some(newest) if newest > group => {
            let newest = Level::of_number(newest);
            format!("{at}; it goes to level {newest} once every server understands that.\n")
        }
        _ => format!("{at}.\n"),
    }
}

pub(super) fn certificate(args: CertificateArgs) -> Result<ExitCode, CommandError> {
    let (client, _) = client(args.data.data_dir)?;
    let status = match args.command {
        CertificateCommand::RotateCa => block(client.rotate_authorities())?,
        CertificateCommand::Status => block(client.authorities())?,
    };
    super::print(&rotation(&status));
    Ok(ExitCode::SUCCESS)
}

fn rotation(status: &RotationStatus) -> String {
    let mut text = format!("generation {}: {}\n", status.generation, status.phase);
    for (fingerprint, what) in &status.server_authorities {
        let _ = writeln!(text, "{fingerprint}  {what}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_with_what_they_understand() {
        let state = |name: &str, level, group_level| MemberState {
            member: sampan_join::Member {
                id: 1,
                name: name.to_owned(),
                addresses: vec!["h:1".to_owned()],
                key: sampan_join::KeyId([1; 32]),
            },
            voter: true,
            leader: false,
            reachable: None,
            lag: None,
            level,
            group_level,
        };
        let text =
            members(&[state("a", Some(2), Some(1)), state("b", None, Some(1)), state("c", Some(1), Some(1))]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains(" 2 ") && lines[2].ends_with("-            h:1"), "{text}");
        assert_eq!(
            lines[4],
            "The cluster is at level 1 (0.2); it goes to level 2 (0.3) once every server understands that."
        );
        let text = members(&[state("a", Some(2), Some(2)), state("b", Some(1), Some(2))]);
        assert!(
            text.contains(" 1, too old ") && text.ends_with("The cluster is at level 2 (0.3).\n"),
            "{text}"
        );
        // A server from before there were levels tells nothing of them.
        assert_eq!(members(&[state("a", None, None)]).lines().count(), 2);
    }
}
