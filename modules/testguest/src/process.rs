//! The process: what it was given, its streams, its end.

use std::io::{BufWriter, Read as _, Write as _, stdin, stdout};
use std::time::Duration;

use crate::Outcome;

/// Prints all arguments, one a line, with the program's name.
pub fn arguments() -> Outcome {
    std::env::args().for_each(|argument| println!("{argument}"));
    Ok(())
}

/// Prints the environment, sorted.
pub fn environment() -> Outcome {
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    variables.iter().for_each(|(name, value)| println!("{name}={value}"));
    Ok(())
}

/// Prints one variable.
pub fn variable(name: &str) -> Outcome {
    println!("{}", std::env::var(name)?);
    Ok(())
}

/// Prints the working directory.
pub fn working_directory() -> Outcome {
    println!("{}", std::env::current_dir()?.display());
    Ok(())
}

/// Ends with any exit code, also in a component, where the standard library knows only 0 and 1.
pub fn exit_with_code(code: u8) -> Outcome {
    #[cfg(target_env = "p2")]
    {
        wasip2::cli::exit::exit_with_code(code);
        Ok(())
    }
    #[cfg(not(target_env = "p2"))]
    std::process::exit(code.into())
}

/// Prints a line.
pub fn print(text: &str) -> Outcome {
    writeln!(stdout(), "{text}")?;
    Ok(stdout().flush()?)
}

/// Prints a line to standard error.
pub fn complain(text: &str) -> Outcome {
    eprintln!("{text}");
    Ok(())
}

/// Copies standard input to standard output until it ends, then says so.
pub fn cat() -> Outcome {
    let mut buffer = [0; 4096];
    loop {
        match stdin().read(&mut buffer)? {
            0 => return print("input ended"),
            read => {
                stdout().write_all(&buffer[..read])?;
                stdout().flush()?;
            }
        }
    }
}

/// Sleeps.
pub fn sleep(milliseconds: u64) -> Outcome {
    // The longest that a clock of nanoseconds can name.
    std::thread::sleep(Duration::from_millis(milliseconds.min(u64::MAX / 2_000_000)));
    Ok(())
}

/// Prints numbered lines as fast as they are taken.
pub fn flood(lines: u64, width: usize) -> Outcome {
    let mut out = BufWriter::with_capacity(16 << 10, stdout().lock());
    for line in 0..lines {
        writeln!(out, "{line:0width$}")?;
    }
    Ok(out.flush()?)
}
