//! Captures in files, and what `flowproxy decode` makes of them.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::datagrams::{Flow, numbered};
use super::process::flowproxy;

/// Link types.
pub const ETHERNET: u32 = 1;
pub const RAW: u32 = 101;
pub const COOKED: u32 = 113;
pub const COOKED_2: u32 = 276;

/// A folder that goes away with the test.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; gives its path.
    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let file = self.0.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

/// What `decode` printed, line by line.
pub fn lines(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The lines of a file that is read whole.
pub fn decode(file: &str) -> Vec<Value> {
    let output = flowproxy(&["decode", "--format", "json", "--raw", file]);
    assert!(output.status.success() && output.stderr.is_empty(), "{file}: {output:?}");
    lines(&output)
}

pub fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

/// The octets of every data record: the flows' numbers.
pub fn octets(lines: &[Value]) -> Vec<u64> {
    of_kind(lines, "data").iter().map(|line| line["fields"]["octetDeltaCount"].as_u64().unwrap()).collect()
}

pub fn flows(numbers: std::ops::Range<u32>) -> Vec<Flow> {
    numbers.map(Flow::numbered).collect()
}

/// Three datagrams, of v5, v9 and IPFIX, with the flows 1 to 89.
pub fn three() -> Vec<Vec<u8>> {
    numbered(1, 90, 30)
}
