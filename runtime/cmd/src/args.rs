//! The command line: names and defaults follow k3s where it has them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ipnet::Ipv4Net;

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
    Server(ClusterArgs),
    /// Print a kubeconfig with administrator rights.
    Kubeconfig(KubeconfigArgs),
    /// Manage the images of this machine's node.
    Image(ImageArgs),
    /// Go back to a snapshot of the database.
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

/// What a cluster is started with.
#[derive(Args, Debug, Clone)]
pub(crate) struct ClusterArgs {
    /// Read options from a YAML file with the same names; the command line wins
    #[arg(short = 'c', long, env = "SAMPAN_CONFIG_FILE", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataDirArgs,
    /// Address on which the API listens [default: 127.0.0.1 for dev, else 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Port on which the API listens; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub(crate) https_listen_port: u16,
    /// Address under which others reach the API [default: this node's address]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Further names or addresses in the API's certificate
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_san: Vec<String>,
    /// Where to write the administrator's kubeconfig
    /// [default: kubeconfig.yaml in the data directory for dev, else /etc/sampan/sampan.yaml]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub(crate) write_kubeconfig: Option<PathBuf>,
    /// Permissions of that file, octal
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = octal)]
    pub(crate) write_kubeconfig_mode: u32,
    /// Range of pod addresses
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidr: Ipv4Net,
    /// Range of service addresses
    #[arg(long, value_name = "CIDR", default_value = "10.43.0.0/16")]
    pub(crate) service_cidr: Ipv4Net,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Label for this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub(crate) node_label: Vec<String>,
    /// Taint for this node, set when it registers
    #[arg(long, value_name = "KEY=VALUE:EFFECT", value_delimiter = ',')]
    pub(crate) node_taint: Vec<String>,
    /// Most pods that this node takes
    #[arg(long, value_name = "COUNT", default_value_t = 250)]
    pub(crate) max_pods: u32,
    /// Run no node here, only the control plane
    #[arg(long)]
    pub(crate) disable_agent: bool,
    /// Append an audit record of each API request to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// How much to log: error, warn, info, debug, trace, or a filter as of RUST_LOG
    /// [default: warn for dev, else info]
    #[arg(long, env = "SAMPAN_LOG", value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
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

/// `sampan snapshot`.
#[derive(Args, Debug, Clone)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Put a snapshot's state in the place of the database, which is moved aside; the cluster must be stopped.
    Restore {
        /// The snapshot.
        file: PathBuf,
        #[command(flatten)]
        data: DataDirArgs,
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

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(format!("{text:?} is not an octal mode such as 600")),
    }
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
        assert_eq!(args.node_label, ["a=b", "c=d", "e=f"]);
        assert_eq!(args.data.data_dir, Some(PathBuf::from("/x")));
    }
}
