//! A far end that shares nothing with us but `proto/`: the Python server of `tests/far_end/`, on grpcio and zstandard.
//!
//! Needs Python with the packages of `tests/far_end/requirements.txt` (`FLOWPROXY_PYTHON`, else `python3`).

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::rig::{End, Rig};
use super::{wait_for, wait_until};

/// Why tests of it are skipped.
pub const NO_PYTHON: &str = "no Python with grpcio, grpcio-tools and zstandard";

/// A Python that can run it.
pub fn python() -> Option<String> {
    let python = std::env::var("FLOWPROXY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&python);
    command.args(["-c", "import grpc, grpc_tools, zstandard"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success()).then_some(python)
}

/// The Python server, and what it has printed.
pub struct FarEnd {
    child: Child,
    output: PathBuf,
}

impl FarEnd {
    /// Starts it with the collector's certificate of `rig`.
    pub fn start(rig: &Rig, python: &str, more: &[&str]) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let output = rig.path("far-end.jsonl");
        let mut command = Command::new(python);
        command.arg(format!("{root}/tests/far_end/far_end.py")).args(["--proto", &format!("{root}/proto")]);
        command.arg("--ca").arg(rig.path("certs/ca.pem")).arg("--cert").arg(rig.path("certs/collector.pem"));
        command.arg("--key").arg(rig.path("certs/collector.key")).args(more);
        // It ends when its input does, so also with this process.
        command.stdin(Stdio::piped()).stdout(std::fs::File::create(&output).unwrap());
        command.stderr(std::fs::File::create(rig.path("far-end.log")).unwrap());
        let child = command.env("PYTHONDONTWRITEBYTECODE", "1").spawn().expect("the Python far end");
        FarEnd { child, output }
    }

    /// A proxy that listens as `listen` says and sends here.
    pub fn proxy(&self, rig: &Rig, listen: &str) -> End {
        rig.proxy_to(listen, &format!("https://localhost:{}", self.port()))
    }

    /// What it has printed so far: one object a line.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(|line| serde_json::from_str(line).expect("JSON of the far end")).collect()
    }

    fn port(&self) -> u64 {
        wait_for("the far end's port", || self.lines().first().and_then(|line| line["port"].as_u64()))
    }

    /// Waits until it has printed at least `count` objects that hold `key`; gives them.
    pub fn wait_lines(&self, key: &str, count: usize) -> Vec<Value> {
        let of_kind = || self.lines().into_iter().filter(|line| !line[key].is_null()).collect::<Vec<_>>();
        wait_until(&format!("{count} of {key} at the far end"), || of_kind().len() >= count);
        of_kind()
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if std::thread::panicking() {
            let log = self.output.with_extension("log");
            eprintln!("--- {}\n{}", log.display(), std::fs::read_to_string(&log).unwrap_or_default());
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
