//! `flowproxy spool`: what lies in a spool's folder, whether it is whole, and its batches out of it. Offline: nothing
//! in the folder is changed, and a proxy may run on it.

mod export;
mod inspect;
mod pcap;
mod verify;

use super::Failure;
use crate::config;
use crate::proto::skip::Reason;
use crate::spool::folder::{self, Depth, Folder};
use crate::storage::Disk;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is typed behind `spool`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show lanes, what of them is not acknowledged, what was skipped, segments and what is set aside
    ///
    /// Exit code: 0; 2 when the folder cannot be read, or this was not understood.
    Inspect(Inspect),
    /// Read every byte, and tell what is damaged
    ///
    /// Exit code: 0 when all is whole; 1 when something is damaged; 2 when the folder cannot be read, or this was not
    /// understood.
    Verify(Place),
    /// Write batches out: records as the collector's JSON lines, or raw datagrams
    ///
    /// Exit code: 0 when all that was asked for came out; 1 when some of it is damaged; 2 when the folder cannot be
    /// read, or this was not understood.
    Export(export::Arguments),
}

/// What is typed behind `inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which folder.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// The folder: a spool, a folder forked-* in it, or its quarantine
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The proxy's config file, which says where its spool is
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> Result<PathBuf, Failure> {
        let Some(file) = &self.config else { return Ok(self.dir.clone().unwrap_or_default()) };
        match config::proxy(file) {
            Ok(config) => Ok(config.spool.dir),
            Err(_) if config::role_of(file) == Some(config::Role::Collector) => {
                Err(Failure::Refused(format!(
                    "{}: is the config of a collector, which has no spool: give the config of a proxy",
                    file.display()
                )))
            }
            Err(faults) => Err(Failure::Config(faults)),
        }
    }

    fn read(&self, depth: Depth) -> Result<Folder, Failure> {
        folder::read(&Disk, &self.dir()?, depth).map_err(Failure::unreadable)
    }
}

/// Does it.
pub fn spool(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Inspect(arguments) => {
            let folder = arguments.place.read(Depth::Headers)?;
            print(&if arguments.json { inspect::json(&folder)? } else { inspect::text(&folder) })
        }
        Command::Verify(place) => {
            let folder = place.read(Depth::Whole)?;
            print(&verify::text(&folder))?;
            verify::verdict(&folder)
        }
        Command::Export(arguments) => export::export(arguments),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::Other(format!("standard output: {error}"))),
    }
}

/// A file in the folder, or the folder.
fn file(folder: &Folder, name: &str) -> String {
    let dir: &Path = &folder.dir;
    if name == "." { dir.display().to_string() } else { dir.join(name).display().to_string() }
}

/// What a reason is called.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Unknown => "unknown",
        Reason::Dropped => "dropped",
        Reason::Damaged => "damaged",
        Reason::Lost => "lost",
        Reason::Rejected => "rejected",
        Reason::AlreadyAcked => "already acked",
    }
}

/// Bytes as a mark store's id or a lane's name is shown.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
