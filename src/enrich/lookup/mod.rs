//! Where addresses belong: autonomous systems and countries, by files in MaxMind's format. Off unless files are named.
//!
//! Each file is looked at every second (a `stat`): that costs nothing, needs nothing of the file system, and follows links that
//! are turned to another file, which watchers of a file do not see. One that has changed is read once it rests.
//!
//! | if | then |
//! |---|---|
//! | a file is missing or broken at the start, or when the config is read again with another path | the config is at fault |
//! | it is replaced, or written anew | it is read beside, and takes the old one's place at once |
//! | it is being written | it is read once it has not changed from one look to the next |
//! | the new one is broken, of another kind, or gone | the old one stays; logged, counted |
//! | a look-up meets damage | counted; nothing is known of that address |
//! | an address is private, of this host, a group or reserved | it is not looked up |
//! | the file is of IPv4 only | IPv6 addresses are not found in it |

mod database;
mod look;

#[cfg(test)]
mod tests;

pub use database::{Database, Error, Kind};
pub use look::Look;

use super::book::Book;
use crate::batch::AddressText;
use crate::lines::limited;
use crate::metrics::Labelled;
use database::{Codes, Stamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The files to look up in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// That with autonomous systems.
    pub asn: Option<PathBuf>,
    /// That with countries.
    pub country: Option<PathBuf>,
}

/// The files that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub struct Unusable(pub Vec<(Kind, PathBuf, Error)>);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (kind, path, error)) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { "\n" };
            let (key, path) = (kind.key(), path.display());
            write!(
                f,
                "{gap}{key} = {path} {error}; allowed: a file in MaxMind's format with {}",
                kind.field()
            )?;
        }
        Ok(())
    }
}

/// What came of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file has it.
    Found,
    /// The file does not have it.
    Unknown,
    /// Not looked up: an address that means something else in every network.
    Special,
    /// The file is damaged there.
    Damaged,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Found, Self::Unknown, Self::Special, Self::Damaged];

    /// Its word in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Unknown => "unknown",
            Self::Special => "special",
            Self::Damaged => "damaged",
        }
    }
}

/// What is counted of look-ups. Clones share it.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Addresses whose autonomous system was asked for, by [`Outcome`].
    pub asn: Labelled,
    /// Addresses whose country was.
    pub country: Labelled,
    /// The counters of these, in the order of [`Outcome::ALL`].
    counters: [[Counter; 4]; 2],
    /// When the files in use were built, in seconds since 1970; 0 without one.
    pub asn_built: Gauge,
    /// See `asn_built`.
    pub country_built: Gauge,
    /// Files that took an old one's place, by [`Kind::label`].
    pub swaps: Labelled,
    /// Files that could not.
    pub failures: Labelled,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let kinds = Kind::ALL.map(Kind::label);
        let outcomes = Outcome::ALL.map(Outcome::label);
        let [asn, country] = [(); 2].map(|()| Labelled::new("result", &outcomes));
        let counters = [&asn, &country].map(|of| outcomes.map(|outcome| of.counter(outcome)));
        Self {
            asn,
            country,
            counters,
            asn_built: Gauge::default(),
            country_built: Gauge::default(),
            swaps: Labelled::new("file", &kinds),
            failures: Labelled::new("file", &kinds),
        }
    }

    /// Puts all of them into `into`, each under its name.
    pub fn register(&self, into: &mut Registry) {
        self.asn.register(into, "lookup_asn_addresses", "Addresses whose autonomous system was asked for");
        self.country.register(into, "lookup_country_addresses", "Addresses whose country was asked for");
        let help = "When the file of autonomous systems was built, since 1970; 0 without one";
        into.register("lookup_asn_built_seconds", help, self.asn_built.clone());
        let help = "When the file of countries was built, since 1970; 0 without one";
        into.register("lookup_country_built_seconds", help, self.country_built.clone());
        self.swaps.register(into, "lookup_swaps", "New files that took the place of old ones");
        self.failures.register(into, "lookup_failures", "New files that could not");
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Files that are open. Never changed: a new file makes another one.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    asn: Option<Arc<Database>>,
    country: Option<Arc<Database>>,
    metrics: Metrics,
    /// Tells these from others.
    generation: u64,
}

impl Databases {
    /// Opens those that are named.
    ///
    /// # Errors
    /// When one cannot be used; all that cannot are told.
    pub fn open(paths: &Paths, metrics: &Metrics) -> Result<Self, Unusable> {
        let mut errors = Vec::new();
        let mut open = |kind, path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            let opened = Database::open(kind, path).map_err(|error| errors.push((kind, path.clone(), error)));
            opened.ok().map(Arc::new)
        };
        let (asn, country) = (open(Kind::Asn, &paths.asn), open(Kind::Country, &paths.country));
        if errors.is_empty() { Ok(Self::new(asn, country, metrics.clone())) } else { Err(Unusable(errors)) }
    }

    fn new(asn: Option<Arc<Database>>, country: Option<Arc<Database>>, metrics: Metrics) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { asn, country, metrics, generation: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Where each is.
    pub fn paths(&self) -> Paths {
        let path = |of: &Option<Arc<Database>>| of.as_ref().map(|of| of.path().to_owned());
        Paths { asn: path(&self.asn), country: path(&self.country) }
    }

    /// Those that there are.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.asn.iter().chain(&self.country)
    }

    fn is_empty(&self) -> bool {
        self.asn.is_none() && self.country.is_none()
    }

    /// Shows of what time they are.
    pub(super) fn show_age(&self) {
        let built = |of: &Option<Arc<Database>>| of.as_ref().map_or(0, |of| of.built() as i64);
        self.metrics.asn_built.set(built(&self.asn));
        self.metrics.country_built.set(built(&self.country));
    }

    /// Puts one in the place of that of its kind.
    fn with(&self, database: Database) -> Self {
        let (mut asn, mut country) = (self.asn.clone(), self.country.clone());
        match database.kind() {
            Kind::Asn => asn = Some(Arc::new(database)),
            Kind::Country => country = Some(Arc::new(database)),
        }
        Self::new(asn, country, self.metrics.clone())
    }

    /// Looks an address up, and counts what came of it.
    fn look_up(&self, address: IpAddr, codes: &mut Codes) -> AddressText {
        let as_number = self.asn.as_ref().map_or(Ok(None), |database| database.as_number(address));
        let country = self.country.as_ref().map_or(Ok(None), |database| database.country(address, codes));
        self.count(outcome(&as_number), outcome(&country));
        AddressText {
            as_number: as_number.ok().flatten().unwrap_or(0),
            country: country.ok().flatten().unwrap_or_default(),
        }
    }

    /// Counts what was at hand.
    fn count_found(&self, text: &AddressText) {
        let of = |is_found| if is_found { Outcome::Found } else { Outcome::Unknown };
        self.count(of(text.as_number != 0), of(text.country != [0; 2]));
    }

    fn count(&self, asn: Outcome, country: Outcome) {
        let [by_asn, by_country] = &self.metrics.counters;
        let both = [(&self.asn, by_asn, asn), (&self.country, by_country, country)];
        for (file, counters, outcome) in both {
            if let Some(counter) = counters.get(outcome as usize).filter(|_| file.is_some()) {
                counter.inc();
            }
        }
    }
}

fn outcome<T>(of: &Result<Option<T>, database::Damage>) -> Outcome {
    match of {
        Ok(Some(_)) => Outcome::Found,
        Ok(None) => Outcome::Unknown,
        Err(database::Damage) => Outcome::Damaged,
    }
}

/// Follows the files, and gives the book what is in them.
#[derive(Debug)]
pub struct Watch {
    book: Book,
    given: watch::Receiver<Databases>,
}

impl Watch {
    /// Gives the book what is open in `given`; and, while it runs, what takes its place there or in the files.
    pub fn new(book: Book, given: watch::Receiver<Databases>) -> Self {
        book.set_databases(given.borrow().clone());
        Self { book, given }
    }

    /// Runs until `end` is cancelled.
    pub async fn run(mut self, end: CancellationToken) {
        let mut can_change = true;
        let mut state = State::new(self.given.borrow_and_update().clone());
        while !end.is_cancelled() {
            tokio::select! {
                () = end.cancelled() => {}
                changed = self.given.changed(), if can_change => {
                    can_change = changed.is_ok();
                    if can_change {
                        state = State::new(self.given.borrow_and_update().clone());
                        self.book.set_databases(state.databases.clone());
                    }
                }
                () = tokio::time::sleep(TICK), if !state.files.is_empty() => {
                    // Files may be long, or lie far away.
                    let looked = tokio::task::spawn_blocking(move || state.look()).await;
                    let Ok((next, is_new)) = looked else { return };
                    state = next;
                    if is_new {
                        self.book.set_databases(state.databases.clone());
                    }
                }
            }
        }
    }
}

/// What is in use, and how the files looked last.
#[derive(Debug)]
struct State {
    databases: Databases,
    files: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    kind: Kind,
    path: PathBuf,
    /// That was tried: it is in use, or cannot be. `None`: there was no file.
    tried: Option<Stamp>,
    /// How the file looked the last time, if not like what was tried.
    seen: Option<Option<Stamp>>,
}

impl State {
    fn new(databases: Databases) -> Self {
        let followed = |of: &Arc<Database>| Followed {
            kind: of.kind(),
            path: of.path().to_owned(),
            tried: Some(of.stamp()),
            seen: None,
        };
        Self { files: databases.all().map(followed).collect(), databases }
    }

    /// Looks at all files. True if there is a new one.
    fn look(mut self) -> (Self, bool) {
        let mut is_new = false;
        for file in &mut self.files {
            let (looked, kind, path) = (file.look(), file.kind.label(), file.path.display());
            match looked {
                None | Some(Err(Error::Changing)) => {}
                Some(Ok(database)) => {
                    let (of, built) = (database.database_type(), database.built());
                    tracing::info!(file = kind, %path, of, built, "A new file for look-ups is in use");
                    self.databases = self.databases.with(database);
                    self.databases.metrics.swaps.add(kind, 1);
                    is_new = true;
                }
                Some(Err(error)) => {
                    self.databases.metrics.failures.add(kind, 1);
                    limited!(warn, file = kind, %path, %error, "A new file for look-ups cannot be used: the old one stays in use");
                }
            }
        }
        (self, is_new)
    }
}

impl Followed {
    /// What became of the file, if it has changed and rests.
    fn look(&mut self) -> Option<Result<Database, Error>> {
        let facts = std::fs::metadata(&self.path);
        let now = facts.as_ref().ok().map(Stamp::of);
        if now == self.tried {
            self.seen = None;
            return None;
        }
        if self.seen != Some(now) {
            self.seen = Some(now);
            return None;
        }
        let opened = match facts {
            Ok(_) => Database::open(self.kind, &self.path),
            Err(error) => Err(error.into()),
        };
        match &opened {
            Ok(database) => self.tried = Some(database.stamp()),
            Err(Error::Changing) => self.seen = None,
            Err(_) => self.tried = now,
        }
        Some(opened)
    }
}
