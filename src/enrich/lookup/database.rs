//! One file in MaxMind's format (MMDB), read into memory.
//!
//! It is not mapped: a file that is cut while it is mapped ends the process (SIGBUS), and updaters do write in place.

use maxminddb::{PathElement, Reader};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files may be so long. The longest that are sold have a tenth of it.
const MOST_BYTES: u64 = 1 << 30;
/// Networks that are looked at before a file counts as good: more would make a start long. Damage behind them is met by look-ups,
/// and counted.
const LOOKED_AT: usize = 100_000;

const AS_NUMBER: [PathElement<'static>; 1] = [PathElement::Key("autonomous_system_number")];
const COUNTRY: [PathElement<'static>; 2] = [PathElement::Key("country"), PathElement::Key("iso_code")];

/// What a file is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Autonomous systems: those of the types ASN and ISP have them.
    Asn,
    /// Countries: those of the types Country, City and Enterprise have them.
    Country,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Asn, Self::Country];

    /// Its word in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Asn => "asn",
            Self::Country => "country",
        }
    }

    /// The option that names it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Asn => "enrich.asn",
            Self::Country => "enrich.country",
        }
    }

    /// What the file must have.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Asn => "autonomous_system_number",
            Self::Country => "country.iso_code",
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is longer than {MOST_BYTES} bytes")]
    TooLong,
    #[error("has changed while it was read")]
    Changing,
    #[error("is damaged, or not in MaxMind's format: {0}")]
    Damaged(#[from] maxminddb::MaxMindDbError),
    #[error("(of the type {of:?}) has no {field}")]
    OtherKind { of: String, field: &'static str },
}

/// What tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(facts: &Metadata) -> Self {
        Self {
            device: facts.dev(),
            inode: facts.ino(),
            bytes: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Database {
    kind: Kind,
    path: PathBuf,
    stamp: Stamp,
    reader: Reader<Vec<u8>>,
}

/// What is damaged of a file that was found good at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage;

impl Database {
    /// Reads a file, and looks at its beginning.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or does not have what it is there for.
    pub fn open(kind: Kind, path: &Path) -> Result<Self, Error> {
        Self::read(kind, path, LOOKED_AT)
    }

    pub(super) fn read(kind: Kind, path: &Path, looked_at: usize) -> Result<Self, Error> {
        let file = File::open(path)?;
        let facts = file.metadata()?;
        if facts.len() > MOST_BYTES {
            return Err(Error::TooLong);
        }
        let stamp = Stamp::of(&facts);
        let mut bytes = Vec::with_capacity(usize::try_from(facts.len()).unwrap_or(0));
        // It may grow while it is read.
        (&file).take(MOST_BYTES).read_to_end(&mut bytes)?;
        if Stamp::of(&file.metadata()?) != stamp {
            return Err(Error::Changing);
        }
        let database = Self { kind, path: path.to_owned(), stamp, reader: Reader::from_source(bytes)? };
        database.look_over(looked_at)?;
        Ok(database)
    }

    fn look_over(&self, networks: usize) -> Result<(), Error> {
        let mut has_any = false;
        for network in self.reader.networks(maxminddb::WithinOptions::default())?.take(networks) {
            let found = network?;
            has_any |= match self.kind {
                Kind::Asn => found.decode_path::<u32>(&AS_NUMBER)?.is_some(),
                Kind::Country => found.decode_path::<&str>(&COUNTRY)?.is_some(),
            };
        }
        if has_any {
            return Ok(());
        }
        Err(Error::OtherKind { of: self.database_type().to_owned(), field: self.kind.field() })
    }

    /// What it is there for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it calls itself.
    pub fn database_type(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// When it was built, in seconds since 1970.
    pub fn built(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The autonomous system that an address is of.
    pub(super) fn as_number(&self, address: IpAddr) -> Result<Option<u32>, Damage> {
        if self.cannot_have(address) {
            return Ok(None);
        }
        let found = self.reader.lookup(address).map_err(|_| Damage)?;
        let number = found.decode_path::<u32>(&AS_NUMBER).map_err(|_| Damage)?;
        Ok(number.filter(|number| *number != 0))
    }

    /// The country that an address is in: two capital letters. `codes` are of this file.
    pub(super) fn country(&self, address: IpAddr, codes: &mut Codes) -> Result<Option<[u8; 2]>, Damage> {
        if self.cannot_have(address) {
            return Ok(None);
        }
        let found = self.reader.lookup(address).map_err(|_| Damage)?;
        let Some(offset) = found.offset() else { return Ok(None) };
        codes.at(offset, || {
            let code = found.decode_path::<&str>(&COUNTRY).map_err(|_| Damage)?;
            let letters = code.and_then(|code| <[u8; 2]>::try_from(code.as_bytes()).ok());
            Ok(letters.filter(|letters| letters.iter().all(u8::is_ascii_uppercase)))
        })
    }

    /// It is of IPv4 only.
    fn cannot_have(&self, address: IpAddr) -> bool {
        address.is_ipv6() && self.reader.metadata().ip_version == 4
    }
}

/// Places of [`Codes`].
const CODES: usize = 2_048;

/// Countries by where they stand in a file. Before each stand its continent's names in eight languages, and all of that is read
/// to find it; networks share what they are said to be, so that a few thousand places serve most.
#[derive(Clone, Debug, Default)]
pub(super) struct Codes(Vec<(usize, Option<[u8; 2]>)>);

impl Codes {
    fn at(
        &mut self,
        offset: usize,
        read: impl FnOnce() -> Result<Option<[u8; 2]>, Damage>,
    ) -> Result<Option<[u8; 2]>, Damage> {
        // No value stands so far behind.
        self.0.resize(CODES, (usize::MAX, None));
        // Values are some hundred bytes long: where they begin differs in the last bits.
        let Some(place) = self.0.get_mut(offset % CODES) else { return read() };
        if place.0 != offset {
            *place = (offset, read()?);
        }
        Ok(place.1)
    }

    /// What is there is of another file.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
