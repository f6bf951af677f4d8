//! Who may import whom: the table "Layers" in `src/lib.rs`, checked against the sources.
//!
//! The table is the truth: this reads the layers from it. Imports are found in the text, in `use` as well as in
//! the middle of code, without comments, literals and `#[cfg(test)]` items. The unit tests at the end show that
//! each rule can fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What pure modules may not name: the start of a path, or its end where the first part is empty.
const IMPURE: [&[&str]; 21] = [
    &["tokio"],
    &["tokio_stream"],
    &["tokio_util"],
    &["tokio_rustls"],
    &["tracing"],
    &["prometheus_client"],
    &["socket2"],
    &["libc"],
    &["redb"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "net", "UdpSocket"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["", "Instant", "now"],
    &["", "SystemTime", "now"],
    &["", "Timestamp", "now"],
    &["", "Zoned", "now"],
    &["", "rand", "rng"],
];

/// Crates that only `tls` names, and what others may name of them: finished settings, to pass on.
const TLS_CRATES: [&str; 4] = ["rustls", "tokio_rustls", "rcgen", "x509_parser"];
const TLS_SETTINGS: [&str; 2] = ["ServerConfig", "ClientConfig"];

/// The modules in which tasks are spawned: those that put an end of the stream together.
const SPAWNING: [&str; 4] = ["proxy", "collector", "cli::collect", "demo"];

/// The layers of `src/lib.rs`: modules and values as paths below the crate.
#[derive(Debug, Default)]
struct Layers {
    pure: BTreeSet<String>,
    outside: BTreeSet<String>,
    assembly: BTreeSet<String>,
}

impl Layers {
    /// Reads the rows `//! | layer | modules | may use |`.
    fn parse(lib: &str) -> Self {
        let mut layers = Self::default();
        for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
            let mut cells = row.split('|');
            let layer = cells.next().unwrap_or_default();
            let modules = cells.next().unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned);
            match layer.split([':', ' ']).next() {
                Some("pure") => layers.pure.extend(modules),
                Some("outside") => layers.outside.extend(modules),
                Some("assembly") => layers.assembly.extend(modules),
                _ => {}
            }
        }
        layers
    }

    /// The path or one that it lies in is pure.
    fn is_pure(&self, path: &[String]) -> bool {
        (1..=path.len())
            .any(|length| path.get(..length).is_some_and(|part| self.pure.contains(&part.join("::"))))
    }

    fn is_assembly(&self, path: &[String]) -> bool {
        path.first().is_some_and(|module| self.assembly.contains(module))
    }

    /// What is wrong with the imports of the module at `module`, whose text is `source`.
    fn faults(&self, module: &[String], source: &str) -> Vec<String> {
        let paths = paths(module, source);
        let named = paths.iter().filter_map(|path| self.fault(module, path).map(|fault| (path, fault)));
        let mut faults: Vec<String> = named
            .map(|(path, fault)| format!("{}: {}: {fault}", module.join("::"), path.join("::")))
            .collect();
        let imports_config = paths.iter().any(|path| starts(path, &["crate", "config"]));
        let inside = module.first().is_some_and(|first| first == "config");
        if !imports_config && !inside && paths.iter().any(|path| starts(path, &["config", ""])) {
            faults.push(format!("{}: write crate::config or ::config, not config", module.join("::")));
        }
        faults
    }

    fn fault(&self, module: &[String], path: &[String]) -> Option<&'static str> {
        let first = module.first().map_or("", String::as_str);
        if let Some(target) = path.strip_prefix(&["crate".to_owned()]).filter(|target| !target.is_empty()) {
            if self.is_pure(module) && !self.is_pure(target) {
                return Some("a pure module may import pure ones only");
            }
            let is_own = target.first().is_some_and(|target| target == first);
            if self.outside.contains(first) && self.is_assembly(target) {
                return Some("a module of the outside world may not import one of the assembly");
            }
            let is_top = |name| target.first().is_some_and(|target| target == name);
            if is_top("cli") && !is_own && first != "main" {
                return Some("only main imports cli");
            }
            if is_top("demo") && !is_own && !matches!(first, "main" | "cli") {
                return Some("only main and cli import demo");
            }
        }
        if self.is_pure(module) && IMPURE.iter().any(|impure| starts(path, impure) || ends(path, impure)) {
            return Some("a pure module may not name this");
        }
        let is_tls = path.first().is_some_and(|krate| TLS_CRATES.contains(&krate.as_str()));
        let is_setting = path.last().is_some_and(|name| TLS_SETTINGS.contains(&name.as_str()));
        if is_tls && !is_setting && first != "tls" {
            return Some("only tls names this crate");
        }
        let spawns = starts(path, &["tokio", "spawn"]) || starts(path, &["tokio", "task", "spawn"]);
        if spawns && !SPAWNING.iter().any(|part| module.join("::").starts_with(part)) {
            return Some("tasks are not spawned here");
        }
        None
    }
}

/// The modules that import each other in a circle, of the imports (from, to).
fn circle(imports: &BTreeSet<(String, String)>) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = imports.iter().map(|(from, _)| from.clone()).collect();
    loop {
        // Who imports nobody that is left is in no circle.
        let is_bound = |name: &String| imports.iter().any(|(from, to)| from == name && left.contains(to));
        let bound: BTreeSet<String> = left.iter().filter(|name| is_bound(name)).cloned().collect();
        if bound.len() == left.len() {
            return left;
        }
        left = bound;
    }
}

/// The path begins with these parts; an empty part at the end stands for any.
fn starts(path: &[String], parts: &[&str]) -> bool {
    path.len() >= parts.len()
        && parts.iter().zip(path).all(|(part, name)| part == name || part.is_empty())
        && parts.first() != Some(&"")
}

/// The path ends with these parts, the first of which is empty.
fn ends(path: &[String], parts: &[&str]) -> bool {
    let Some((&"", parts)) = parts.split_first() else { return false };
    path.len() >= parts.len() && path.iter().rev().zip(parts.iter().rev()).all(|(name, part)| name == part)
}

/// The words and marks of a source text, without comments and literals. `::` is one mark.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let word = |c: char| !c.is_alphanumeric() && c != '_';
            rest.find(word).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        let is_kept = !first.is_whitespace() && !token.starts_with("//") && !token.starts_with("/*");
        if is_kept && literal(rest).is_none() {
            tokens.push(token.to_owned());
        }
        rest = after;
    }
    tokens
}

/// The length of the text or character literal that begins here.
fn literal(rest: &str) -> Option<usize> {
    ["", "b", "c", "r", "br", "cr"].iter().find_map(|prefix| {
        let body = rest.strip_prefix(prefix)?;
        let length = if prefix.ends_with('r') { raw_text(body)? } else { text_or_character(body)? };
        Some(prefix.len() + length)
    })
}

fn raw_text(body: &str) -> Option<usize> {
    let hashes = body.chars().take_while(|&c| c == '#').count();
    let inner = body.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    inner.find(&end).map(|at| hashes + 1 + at + end.len())
}

fn text_or_character(body: &str) -> Option<usize> {
    let quote = body.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let mut is_escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return Some(at + 1),
            // A lifetime: a character has its quote right after it.
            _ if quote == '\'' && !body.get(at + c.len_utf8()..)?.starts_with(quote) && at == 1 => {
                return None;
            }
            _ => {}
        }
    }
    None
}

/// All paths of two parts and more in a source text, from `crate` on where they lead into it.
fn paths(module: &[String], source: &str) -> Vec<Vec<String>> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let rest = tokens.get(at..).unwrap_or_default();
        if let Some(length) = test_item(rest) {
            at += length;
        } else if rest.get(1).is_some_and(|next| next == "::") && is_word(token) {
            at += read_path(rest, &mut Vec::new(), &mut found);
        } else {
            at += 1;
        }
    }
    found.into_iter().map(|path| from_crate(module, path)).collect()
}

fn is_word(token: &str) -> bool {
    token == "*" || token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The length of a `#[cfg(test)]` item: to its semicolon, or the brace that closes its first.
fn test_item(tokens: &[String]) -> Option<usize> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let is_test =
        tokens.len() > attribute.len() && attribute.iter().zip(tokens).all(|(want, token)| want == token);
    let mut depth = 0;
    let is_end = |token: &String| {
        depth += i32::from(token == "{") - i32::from(token == "}");
        depth == 0 && matches!(token.as_str(), ";" | "}")
    };
    is_test.then(|| tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1))
}

/// Reads the path that begins here, with all branches of its braces; says how many tokens it has.
fn read_path(tokens: &[String], before: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let depth = before.len();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while let Some(token) = tokens.get(at).filter(|token| *token != "}") {
                let rest = tokens.get(at..).unwrap_or_default();
                at += if is_word(token) { read_path(rest, before, found) } else { 1 };
            }
            before.truncate(depth);
            return at + 1;
        }
        if !is_word(token) {
            break;
        }
        before.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|next| next != "::") {
            break;
        }
        at += 1;
    }
    found.push(before.clone());
    before.truncate(depth);
    at.max(1)
}

/// `self` and `super` as paths from `crate` on.
fn from_crate(module: &[String], path: Vec<String>) -> Vec<String> {
    let up = path.iter().take_while(|part| *part == "super").count();
    let skip = if path.first().is_some_and(|part| part == "self") { 1 } else { up };
    if skip == 0 {
        return path;
    }
    let base = module.iter().take(module.len().saturating_sub(up));
    std::iter::once("crate".to_owned()).chain(base.cloned()).chain(path.into_iter().skip(skip)).collect()
}

/// The module that a file below `src` is; `None` for one of tests.
fn module_of(file: &Path) -> Option<Vec<String>> {
    let stem = file.with_extension("");
    let mut module: Vec<String> = stem.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    (!module.iter().any(|part| part == "tests" || part == "simulation")).then_some(module)
}

/// Every source file's module and text.
fn sources() -> Vec<(Vec<String>, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let module = path.strip_prefix(&root).ok().and_then(module_of);
                sources.extend(module.zip(fs::read_to_string(&path).ok()));
            }
        }
    }
    sources
}

fn layers() -> Layers {
    Layers::parse(include_str!("../src/lib.rs"))
}

#[test]
fn every_import_keeps_to_the_layers() {
    let layers = layers();
    let sources = sources();
    assert!(sources.len() > 20, "the sources are not there");
    let faults: Vec<_> = sources.iter().flat_map(|(module, text)| layers.faults(module, text)).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn arrows_point_one_way() {
    let layers = layers();
    let mut imports = BTreeSet::new();
    for (module, text) in sources() {
        for path in paths(&module, &text) {
            if let ([from, ..], [root, to, ..]) = (module.as_slice(), path.as_slice())
                && root == "crate"
                && from != to
                && !layers.is_pure(&module)
                && !layers.is_pure(path.get(1..).unwrap_or_default())
            {
                imports.insert((from.clone(), to.clone()));
            }
        }
    }
    assert!(imports.len() > 5, "the imports are not found");
    assert_eq!(circle(&imports), BTreeSet::new());
}

#[test]
fn a_circle_is_found() {
    let imports =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
    assert_eq!(circle(&imports(&[("a", "b"), ("b", "c"), ("a", "c")])), BTreeSet::new());
    let found = circle(&imports(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]));
    assert!(found.contains("b") && found.contains("c") && !found.contains("d"));
}

#[test]
fn every_module_stands_in_the_table() {
    let layers = layers();
    let sources = sources();
    let all: BTreeSet<&String> = layers.pure.iter().chain(&layers.outside).chain(&layers.assembly).collect();
    for (module, _) in sources.iter().filter(|(module, _)| module.len() == 1) {
        let name = module.join("::");
        assert!(matches!(name.as_str(), "lib" | "main") || all.contains(&name), "{name} is in no layer");
    }
    let is_there = |name: &str| sources.iter().any(|(module, _)| module.join("::") == name);
    let is_value = |name: &str| name.contains("::") && name.contains(char::is_uppercase);
    for name in all {
        assert!(is_there(name) || is_value(name), "there is no module {name}");
    }
}

fn faults(module: &str, source: &str) -> Vec<String> {
    let table = "//! | pure: no clock | `flow`, `wire`, `spool::frame`, `spool::LaneId` | each other |\n\
                 //! | outside world | `spool`, `uplink`, `tls`, `config` | pure |\n\
                 //! | assembly | `proxy`, `demo`, `cli` | all |\n";
    let module: Vec<String> = module.split("::").map(str::to_owned).collect();
    Layers::parse(table).faults(&module, source)
}

#[test]
fn each_rule_can_fail() {
    for (module, source) in [
        ("flow", "use crate::spool::Writer;"),
        ("flow", "use crate::{wire::Fault, spool};"),
        ("flow::deep", "use super::super::spool::Writer;"),
        ("spool::frame", "use super::Writer;"),
        ("wire", "fn f() { crate::uplink::connect() }"),
        ("wire", "assert!(crate::spool::full());"),
        ("wire", "use std::{net::{IpAddr, UdpSocket}, fmt};"),
        ("wire", "let now = std::time::Instant::now();"),
        ("wire", "let now = Instant::now();"),
        ("wire", "tracing::info!(\"a\");"),
        ("wire", "use std::fs;"),
        ("wire", "#[cfg(test)] mod tests { use x::y; } use tokio::net::UdpSocket;"),
        ("uplink", "use crate::demo::run;"),
        ("uplink", "use crate::proxy::run;"),
        ("proxy", "use crate::cli::run;"),
        ("uplink", "use rustls::pki_types::CertificateDer;"),
        ("uplink", "tokio::spawn(f());"),
        ("uplink", "use config::Config;"),
    ] {
        assert_eq!(faults(module, source).len(), 1, "{module}: {source}: {:?}", faults(module, source));
    }
}

#[test]
fn what_is_allowed_is_no_fault() {
    for (module, source) in [
        ("flow", "use crate::wire::{self, Fault}; use super::spool::LaneId; use std::net::IpAddr;"),
        ("spool::frame", "use super::LaneId; use self::deep::X; use crate::flow::Exporter;"),
        ("wire", "// use std::fs;\n/* crate::spool */ let a = \"tokio::net\"; let b = r#\"crate::spool\"#;"),
        ("wire", "let c = 'a'; let d: &'static str = \"\\\"crate::spool::x\"; let e = b'\\''; let f = '\"';"),
        ("wire", "#[cfg(test)]\nmod tests { use std::fs; fn f() { if a { tokio::x() } } }"),
        ("wire", "#[cfg(test)]\nmod tests;"),
        (
            "uplink",
            "use rustls::ClientConfig; use crate::spool::Spool; use std::fs; use tokio::net::TcpStream;",
        ),
        ("cli", "use crate::config; fn f() { config::read() }"),
        ("cli", "use crate::demo; use ::config::Config;"),
        ("config", "use ::config::Config; use super::config::Fault;"),
        ("tls", "use rcgen::KeyPair;"),
        ("proxy", "tokio::spawn(f())"),
    ] {
        assert_eq!(faults(module, source), Vec::<String>::new(), "{module}: {source}");
    }
}
