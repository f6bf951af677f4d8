//! What exporters have told, kept on disk: one redb database in `[state] dir`, one thread that writes it.
//!
//! ```text
//! shard-0 .. shard-n --Sender--> mailbox --Keeper (thread)--> DIR/exporters.redb        at the start: rows --> shards
//! ```
//!
//! | table | key | value |
//! |---|---|---|
//! | `domains` | `wire::DomainKey` as bytes | when it last decoded a record (hours since 1970, 0: never), `wire::Saved` as bytes |
//! | `uses` | the same, if it has decoded one | when it first did, whether its shard has given it up since |
//!
//! | if | then |
//! |---|---|
//! | something has changed | it is durable within 5 s: a second until the shard looks, three for what changes with it, one transaction |
//! | nothing has changed | nothing is written |
//! | much changes all the time | 64 MiB are written so soon, then some 5 GiB a day, every 5 min at the latest: `pace.rs` |
//! | meanwhile something changes that has decoded records | it is durable within 5 s all the same, 1,000 domains and 256 KiB of it: `mailbox.rs` |
//! | a domain has changed again meanwhile | its newest state is written, once |
//! | the mailbox is full | the shard tries again a second later; it never waits |
//! | the disk is full or fails | logged once, counted, shown in `/status`; tried again every 3 s; nothing else stops |
//! | the process is killed | the last transaction is there, whole |
//! | the database is damaged, or of another version | it is set aside as `exporters.redb.aside`, and a new one is begun |
//! | it cannot be opened for another reason, but for the next line | nothing is restored; it is tried again, and what is in it then stays, but for what is told anew |
//! | another process has it | the start is refused |
//! | a shard gives a domain up | it goes, unless it has decoded records: then it goes before those that shards still have |
//! | there is more than the shards' tables can hold | what is worth least goes: `rank.rs` |
//!
//! What the bytes mean is said in `wire`; this only keeps them.

mod mailbox;
mod metrics;
mod pace;
mod rank;
mod store;

pub use mailbox::Sender;
pub use metrics::Metrics;

use crate::wire::{DomainKey, Saved};
use mailbox::{Batch, Mailbox};
use pace::Pace;
use std::path::{Path, PathBuf};
use std::time::Instant;
use store::Store;

/// Where state is kept, and how much of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder; made if it is not there.
    pub dir: PathBuf,
    /// Domains, at the most.
    pub max_domains: usize,
    /// Bytes of their saved forms, at the most.
    pub max_bytes: u64,
}

/// Why the proxy may not start with this store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the state folder {} is in use by another process; give each its own [state] dir", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
}

/// Why state could not be kept in a folder, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The folder, or the one that it is to be made in.
    #[error(
        "[state] dir {}: {source}; it has to be a folder, or one that can be made, that this user may read and write: \
         make it so (chown, chmod), or name one of the proxy's own",
        dir.display()
    )]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What was said of it.
        source: std::io::Error,
    },
    /// The database.
    #[error(
        "[state] dir: {}: {source}; it has to be a file that this user may read and write, and no link: \
         make it so (chown, chmod), or move it away to begin anew",
        file.display()
    )]
    File {
        /// The file.
        file: PathBuf,
        /// What was said of it.
        source: std::io::Error,
    },
}

/// Looks whether state could be kept in a folder; makes and changes nothing that stays.
///
/// # Errors
/// When it could not, as the user that this runs as.
pub fn probe(dir: &Path) -> Result<(), ProbeError> {
    store::probe(dir)
}

/// What is kept of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose it is.
    pub key: DomainKey,
    /// What it had told.
    pub saved: Saved,
}

/// Opens the store: who writes it, who hands over to it, and what is in it, what is worth least first.
///
/// # Errors
/// When another process has it. A store that cannot be read is none: see the table at the head.
pub fn open(settings: Settings, metrics: Metrics) -> Result<(Keeper, Sender, Vec<Row>), OpenError> {
    let mut store = Store::new(settings, metrics.clone());
    let rows = store.open()?;
    let mailbox = Mailbox::new(store.season());
    let sender = Sender::new(mailbox.clone());
    Ok((Keeper { store, mailbox, metrics }, sender, rows))
}

/// Writes what is handed over, on a thread of its own.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    mailbox: Mailbox,
    metrics: Metrics,
}

impl Keeper {
    /// Writes what comes until the last [`Sender`] is gone, and then what is left.
    pub fn run(mut self) {
        // Taken out of the mailbox, and not yet durable.
        let mut batch = Batch::default();
        let mut pace = Pace::new(Instant::now());
        loop {
            let over = self.mailbox.wait(!batch.is_empty(), pace::INTERVAL);
            let mut is_slow = true;
            if batch.is_empty() {
                let (quick, slow) = self.mailbox.take(pace.is_due(Instant::now()));
                is_slow = !slow.is_empty();
                batch = quick;
                batch.extend(slow);
            }
            let written = self.write(&batch);
            if written && !batch.is_empty() {
                let bytes = batch.values().flatten().map(|saved| saved.bytes.len()).sum();
                pace.wrote(bytes, is_slow, Instant::now());
                batch.clear();
            }
            if over && (!written || self.mailbox.is_empty()) {
                return;
            }
        }
    }

    /// Makes the batch durable; logs when that begins, or ceases, to fail.
    fn write(&mut self, batch: &Batch) -> bool {
        if batch.is_empty() {
            return true;
        }
        let result = self.store.write(batch);
        let worked = self.metrics.writable.set(i64::from(result.is_ok())) == 1;
        match &result {
            Ok(()) => {
                self.metrics.writes.inc();
                self.metrics.written_domains.inc_by(batch.len() as u64);
                if !worked {
                    tracing::info!("What exporters tell is kept again");
                }
            }
            Err(error) => {
                self.metrics.write_failures.inc();
                if worked {
                    tracing::error!(%error, "What exporters tell cannot be kept for the next start; trying on");
                }
            }
        }
        self.mailbox.set_season(self.store.season());
        result.is_ok()
    }
}

#[cfg(test)]
mod tests;
