//! The command line: arguments in, exit code out.

use clap::Parser;
use flowproxy::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::execute(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
