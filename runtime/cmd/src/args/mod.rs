//! The command line: names and defaults follow k3s where it has them.

mod admin;
mod cluster;
mod snapshot;
mod values;

pub(crate) use admin::{
    CertificateArgs, CertificateCommand, MemberArgs, MemberCommand, NodeAdminArgs, NodeCommand, TokenArgs,
    TokenCommand, TokenRole,
};
pub(crate) use cluster::{AgentArgs, ClusterArgs, JoinArgs, NodeArgs, ServerArgs};
pub(crate) use snapshot::{OnOtherKeys, S3Args, SnapshotArgs, SnapshotCommand, SnapshotTargetArgs};

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config_file;
use crate::error::CommandError;

/// A WebAssembly edge micro-orchestrator that speaks the Kubernetes API.
#[derive(Debug, Parser)]
#[command(name = "sampan", version, args_override_self = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster on this machine, without root, for development.
    Dev(ClusterArgs),
    /// Run a server: the control plane and, unless disabled, this machine's node.
    Server(ServerArgs),
    /// Run this machine as a node of a cluster whose servers are elsewhere.
    Agent(AgentArgs),
    /// Manage the tokens with which machines join.
    Token(TokenArgs),
    /// Manage the servers that hold the database.
    Member(MemberArgs),
    /// Manage the machines that have joined as nodes.
    Node(NodeAdminArgs),
    /// Manage the cluster's certificates.
    Certificate(CertificateArgs),
    /// Print a kubeconfig with administrator rights.
    Kubeconfig(KubeconfigArgs),
    /// Manage the images of this machine's node.
    Image(ImageArgs),
    /// Save, look at and go back to snapshots of the database.
    Snapshot(SnapshotArgs),
    /// Tell what works on this machine, what does not, and why.
    Check(CheckArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Compiles one module; the node runs this in a process of its own.
    #[command(hide = true)]
    Compile {
        /// Arguments of the compiler process.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Where the state is.
#[derive(Args, Debug, Clone)]
pub(crate) struct DataDirArgs {
    /// Directory of all state [default: ~/.local/share/sampan for dev, else /var/lib/sampan]
    #[arg(short = 'd', long, env = "SAMPAN_DATA_DIR", value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `sampan kubeconfig`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KubeconfigArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    /// The API's address in the kubeconfig [default: as the running server wrote it]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
}

/// `sampan image`.
#[derive(Args, Debug, Clone)]
pub(crate) struct ImageArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ImageCommand {
    /// Make a module or an OCI image from a file available under a name.
    Import {
        /// The image's name, as pods will call it: my/app:v1.
        name: String,
        /// A .wasm file, an OCI image layout directory or an OCI archive.
        file: PathBuf,
    },
    /// List the images.
    Ls,
    /// Forget images, by name or id.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// `sampan check`.
#[derive(Args, Debug, Clone)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    /// Port on which the API would listen
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub(crate) https_listen_port: u16,
}

/// Parses the command line, with the options of a configuration file, where one is named, before it.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, CommandError> {
    let command = Cli::command();
    let arguments = config_file::expand(arguments, &command)?;
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => return Err(one_line(&error)),
    };
    Cli::from_arg_matches(&matches).map_err(|error| one_line(&error))
}

/// The command as clap knows it, for completions.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// clap explains itself over many lines; the first says what is wrong.
fn one_line(error: &clap::Error) -> CommandError {
    use clap::error::ErrorKind;
    let text = error.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CommandError::new("a command is missing; 'sampan --help' lists them");
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first =
        lines.next().unwrap_or("the command line makes no sense").trim_start_matches("error: ").to_owned();
    // "the following arguments were not provided:" goes on on the next lines.
    let rest = if first.ends_with(':') { lines.next().map(|line| format!(" {line}")) } else { None };
    CommandError::new(format!("{first}{}; see 'sampan --help'", rest.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        parse(line.split(' ').map(OsString::from).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn mistakes_are_one_line() {
        for (line, part) in [
            ("sampan server --wrong", "--wrong"),
            ("sampan server --https-listen-port x", "invalid value 'x'"),
            ("sampan server --cluster-cidr 10.0.0.0/99", "10.0.0.0/99"),
            ("sampan nothing", "nothing"),
            ("sampan image import a", "<FILE>"),
            ("sampan dev --write-kubeconfig-mode 999", "octal"),
            ("sampan server --etcd-watch-progress-notify-interval 5s", "--etcd-listen"),
        ] {
            let text = parsed(line).unwrap_err();
            assert!(text.contains(part) && !text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = parsed("sampan server --node-label a=b,c=d --node-label e=f -d /x").unwrap();
        let Command::Server(args) = cli.command else { unreachable!() };
        assert_eq!(args.cluster.node.node_label, ["a=b", "c=d", "e=f"]);
        assert_eq!(args.cluster.node.data.data_dir, Some(PathBuf::from("/x")));
    }
}
