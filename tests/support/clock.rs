//! Clocks, and chance, that a test sets for the processes it starts. The product asks the system as ever: a small library
//! is preloaded that answers for it, compiled when it is needed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::process::run_tool;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/preload");

/// A library of `preload/` in a folder; `None` where one cannot be preloaded like that.
fn library(name: &str, dir: &Path) -> Option<PathBuf> {
    let known = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if !(known && cfg!(all(target_os = "linux", target_env = "gnu"))) {
        return None;
    }
    std::fs::create_dir_all(dir).expect("a folder");
    let library = dir.join(format!("lib{name}.so"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compile = Command::new(rustc);
    compile.args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=1", "--crate-name", name]);
    run_tool(compile.arg(format!("{SOURCES}/{name}.rs")).arg("-o").arg(&library));
    Some(library)
}

/// What `LD_PRELOAD` and the library need.
pub struct Clock {
    library: PathBuf,
    wall: PathBuf,
    uptime: PathBuf,
}

impl Clock {
    /// Clocks that are right, kept in a folder; `None` where a library cannot be preloaded.
    pub fn new(dir: &Path) -> Option<Self> {
        let library = library("clock", dir)?;
        let clock = Self { library, wall: dir.join("clock"), uptime: dir.join("uptime") };
        clock.shift(0);
        clock.leap(0);
        Some(clock)
    }

    /// The environment for a process.
    pub fn environment(&self) -> [(&'static str, &OsStr); 3] {
        [
            ("LD_PRELOAD", self.library.as_ref()),
            ("FLOWPROXY_TEST_CLOCK", self.wall.as_ref()),
            ("FLOWPROXY_TEST_UPTIME", self.uptime.as_ref()),
        ]
    }

    /// Sets the wall clock off by so many seconds.
    pub fn shift(&self, seconds: i64) {
        write(&self.wall, seconds);
    }

    /// Sets the clock off by which waits are measured: so many seconds more than the system's, and never less than before.
    pub fn leap(&self, seconds: i64) {
        write(&self.uptime, seconds);
    }

    /// Sets the wall clock to a time since 1970.
    pub fn set(&self, since_1970: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
        self.shift(since_1970.as_secs() as i64 - now.as_secs() as i64);
    }
}

fn write(file: &Path, seconds: i64) {
    let new = file.with_extension("new");
    std::fs::write(&new, seconds.to_string()).expect("a clock's file");
    std::fs::rename(&new, file).expect("a clock's file");
}

/// Chance that is the same for all processes with this environment: what they draw is what the others draw.
pub struct Chance {
    library: PathBuf,
    seed: OsString,
}

impl Chance {
    /// By this seed, its library in a folder; `None` where one cannot be preloaded.
    pub fn new(dir: &Path, seed: &str) -> Option<Self> {
        Some(Self { library: library("chance", dir)?, seed: seed.into() })
    }

    /// The environment for a process.
    pub fn environment(&self) -> [(&'static str, &OsStr); 2] {
        [("LD_PRELOAD", self.library.as_ref()), ("FLOWPROXY_TEST_CHANCE", &self.seed)]
    }
}
