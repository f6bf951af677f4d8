//! A wall clock that a test sets for the processes it starts. The product reads the system's clock as ever: a small
//! library is preloaded that answers for it, compiled when it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::process::run_tool;

const PRELOADED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/preload/clock.rs");

/// What `LD_PRELOAD` and the library need.
pub struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// A clock that is right, kept in a folder; `None` where a library cannot be preloaded like that.
    pub fn new(dir: &Path) -> Option<Self> {
        let known = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
        if !(known && cfg!(all(target_os = "linux", target_env = "gnu"))) {
            return None;
        }
        std::fs::create_dir_all(dir).expect("a folder");
        let clock = Self { library: dir.join("libclock.so"), shift: dir.join("clock") };
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut compile = Command::new(rustc);
        compile.args(["--edition=2024", "--crate-type=cdylib", "--crate-name=clock", "-Copt-level=1"]);
        run_tool(compile.arg(PRELOADED).arg("-o").arg(&clock.library));
        clock.shift(0);
        Some(clock)
    }

    /// The environment for a process.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("FLOWPROXY_TEST_CLOCK", &self.shift)]
    }

    /// Sets the clock off by so many seconds.
    pub fn shift(&self, seconds: i64) {
        let new = self.shift.with_extension("new");
        std::fs::write(&new, seconds.to_string()).expect("the clock's file");
        std::fs::rename(&new, &self.shift).expect("the clock's file");
    }

    /// Sets the clock to a time since 1970.
    pub fn set(&self, since_1970: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
        self.shift(since_1970.as_secs() as i64 - now.as_secs() as i64);
    }
}
