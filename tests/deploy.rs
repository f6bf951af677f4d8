//! Every config and unit that we ship is one that works.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use clap::Parser;
use flowproxy::{cli, config};
use std::path::{Path, PathBuf};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(shipped(name)).unwrap()
}

#[test]
fn the_example_configs_can_be_read() {
    let proxy = config::proxy(&shipped("proxy.toml")).unwrap();
    assert!(proxy.listen.udp.iter().all(|address| address.ip().is_loopback()));
    config::collector(&shipped("collector.toml")).unwrap();
    assert!(matches!(config::either(&shipped("proxy.toml")), Ok(config::Config::Proxy(_))));
    assert!(matches!(config::either(&shipped("collector.toml")), Ok(config::Config::Collector(_))));
}

#[test]
fn what_the_examples_leave_out_can_be_put_in() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["proxy.toml", "collector.toml"] {
        let lines = text(name).lines().map(put_in).collect::<Vec<_>>().join("\n");
        let file = folder.path().join(name);
        std::fs::write(&file, lines).unwrap();
        config::either(&file).unwrap();
    }
}

/// A line that is commented out becomes one that counts; prose stays.
fn put_in(line: &str) -> &str {
    let inner = line.strip_prefix("# ").unwrap_or(line);
    let is_option =
        inner.starts_with('[') || inner.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    if is_option { inner } else { line }
}

#[test]
fn the_units_start_what_exists_with_the_config_that_they_name() {
    for (unit, command, config) in [
        ("systemd/flowproxy.service", "run", "proxy.toml"),
        ("systemd/flowproxy-collector.service", "collect", "collector.toml"),
    ] {
        let text = text(unit);
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<_> = start.split(' ').collect();
        assert_eq!(words[1..], [command, "-c", &format!("/etc/flowproxy/{config}")]);
        cli::Arguments::try_parse_from(words).unwrap();
        assert!(text.contains("RestartPreventExitStatus=78"));
        let state = text.lines().find_map(|line| line.strip_prefix("StateDirectory=")).unwrap();
        let shipped = std::fs::read_to_string(shipped(config)).unwrap();
        assert!(shipped.contains(&format!("\"/var/lib/{state}/")), "{config} keeps its state in {state}");
    }
}

#[test]
fn the_container_starts_what_exists() {
    let text = text("Containerfile");
    let command = text.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    let words: Vec<String> = serde_json::from_str(command).unwrap();
    cli::Arguments::try_parse_from(["flowproxy".to_owned()].into_iter().chain(words)).unwrap();
}

#[test]
fn the_manifest_holds_a_config_that_can_be_read() {
    let text = text("kubernetes.yaml");
    let (_, after) = text.split_once("  proxy.toml: |\n").unwrap();
    let lines = after.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let config: Vec<_> = lines.map(str::trim_start).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, config.join("\n")).unwrap();
    config::proxy(&file).unwrap();
    let args = text.lines().find_map(|line| line.trim().strip_prefix("args: ")).unwrap();
    let words: Vec<String> = serde_json::from_str(args).unwrap();
    cli::Arguments::try_parse_from(["flowproxy".to_owned()].into_iter().chain(words)).unwrap();
}

/// The tables of options in README.md are those of `config::options`. When they are not, the failure shows what has
/// to stand there.
#[test]
fn the_readme_has_every_option() {
    let Ok(readme) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")) else {
        println!("skipped: there is no README.md beside Cargo.toml");
        return;
    };
    for role in [config::Role::Proxy, config::Role::Collector] {
        let table = config::options::markdown(role);
        assert!(readme.contains(&table), "README.md must have, for the {}:\n\n{table}", role.label());
    }
}
