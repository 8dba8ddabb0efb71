//! `sampan kubeconfig`: an administrator's kubeconfig on standard output.

use std::process::ExitCode;

use crate::args::KubeconfigArgs;
use crate::data_dir;
use crate::error::{CommandError, Doing};

pub(super) fn run(args: KubeconfigArgs) -> Result<ExitCode, CommandError> {
    let data_dir = data_dir::existing(args.data.data_dir)?;
    let tls = data_dir.join("tls");
    let missing = || {
        format!(
            "{} holds no usable keys; start the cluster once, or name its directory with --data-dir",
            tls.display()
        )
    };
    let server = match args.server {
        Some(server) => server,
        None => std::fs::read_to_string(data_dir.join(crate::server::SERVER_FILE))
            .doing(missing)?
            .trim()
            .to_owned(),
    };
    let text = sampan_apiserver::pki::stored_admin_kubeconfig(&tls, &server).doing(missing)?;
    super::print(&text);
    Ok(ExitCode::SUCCESS)
}
