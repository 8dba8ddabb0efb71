//! Does what a test asks for: `testguest print ready then sleep 100 then exit 3`.
//!
//! Whatever goes wrong is printed to standard error and ends the program with exit code 1.

mod files;
mod load;
mod net;
mod process;

use std::error::Error;
use std::process::ExitCode;

/// What a subcommand comes to.
type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for command in arguments.split(|argument| argument == "then") {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        if let Err(error) = run(&words) {
            eprintln!("{}: {error}", command.join(" "));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(words: &[&str]) -> Outcome {
    match *words {
        // What it was given.
        ["args"] => process::arguments(),
        ["env"] => process::environment(),
        ["env", name] => process::variable(name),
        ["cwd"] => process::working_directory(),
        // How it ends.
        [] | ["ok"] => Ok(()),
        ["fail"] => Err("told to fail".into()),
        ["exit", code] => std::process::exit(code.parse()?),
        ["exit-with-code", code] => process::exit_with_code(code.parse()?),
        ["panic", ref text @ ..] => panic!("{}", text.join(" ")),
        ["abort"] => std::process::abort(),
        ["overflow"] => load::overflow(),
        // What it burdens the node with.
        ["spin"] => load::spin_forever(),
        ["spin", milliseconds] => load::spin(milliseconds.parse()?),
        ["clock", milliseconds] => load::ask_the_clock(milliseconds.parse()?),
        ["alloc", mebibytes] => load::allocate(mebibytes.parse()?),
        ["flood", lines] => process::flood(lines.parse()?, 80),
        ["flood", lines, width] => process::flood(lines.parse()?, width.parse()?),
        // Standard streams and time.
        ["print", ref text @ ..] => process::print(&text.join(" ")),
        ["complain", ref text @ ..] => process::complain(&text.join(" ")),
        ["cat"] => process::cat(),
        ["sleep", milliseconds] => process::sleep(milliseconds.parse()?),
        ["sleep"] => process::sleep(u64::MAX),
        // Files.
        ["write", path, ref text @ ..] => files::write(path, &text.join(" ")),
        ["append", path, ref text @ ..] => files::append(path, &text.join(" ")),
        ["fill", path, kibibytes] => files::fill(path, kibibytes.parse()?),
        ["read", path] => files::read(path),
        ["list", path] => files::list(path),
        ["mkdir", path] => files::make_directory(path),
        ["remove", path] => files::remove(path),
        ["rename", from, to] => files::rename(from, to),
        ["link", target, path] => files::link(target, path),
        ["await", path, text] => files::wait_for(path, text),
        // Network.
        ["resolve", name] => net::resolve(name),
        ["tcp-echo", address] => net::tcp_echo(address, usize::MAX),
        ["tcp-echo", address, connections] => net::tcp_echo(address, connections.parse()?),
        ["tcp-send", address, ref text @ ..] => net::tcp_send(address, &text.join(" ")),
        ["udp-echo", address] => net::udp_echo(address, usize::MAX),
        ["udp-echo", address, datagrams] => net::udp_echo(address, datagrams.parse()?),
        ["udp-send", address, ref text @ ..] => net::udp_send(address, &text.join(" ")),
        _ => Err("no such subcommand, or not with these arguments".into()),
    }
}
