//! What can be typed, and what comes of it.

use super::*;
use clap::CommandFactory;
use std::path::Path;

fn typed(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once(&"flowproxy").chain(words))
}

fn done(words: &[&str]) -> Result<(), Failure> {
    execute(typed(words).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_arguments_are_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn a_config_file_is_asked_for() {
    assert!(typed(&["check"]).is_err());
    assert!(typed(&["check", "-c", "f.toml"]).is_ok());
    assert!(typed(&["check", "--config", "f.toml", "--log", "debug", "--log-json"]).is_ok());
    assert!(typed(&["nonsense"]).is_err());
}

#[test]
fn certificates_are_made_and_a_config_with_them_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca");
    done(&["certs", "ca", "--out", text(&ca)]).unwrap();
    let server =
        ["--name", "collector", "--server", "--dns", "localhost", "--ip", "127.0.0.1", "--ip", "::1"];
    done(&[&["certs", "issue", "--ca", text(&ca)], &server[..]].concat()).unwrap();
    done(&["certs", "issue", "--ca", text(&ca), "--name", "edge1", "--out", text(folder.path())]).unwrap();
    for file in ["ca/ca.pem", "ca/ca.key", "ca/collector.pem", "ca/collector.key", "edge1.pem", "edge1.key"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    let proxy = folder.path().join("proxy.toml");
    let tls = "[tls]\nca = 'ca/ca.pem'\ncert = 'edge1.pem'\nkey = 'edge1.key'\n";
    let rest = "[listen]\nudp = ['127.0.0.1:0']\n[uplink]\nendpoint = 'https://localhost:4440'\n";
    std::fs::write(&proxy, format!("{rest}{tls}")).unwrap();
    let summary = check::check(&proxy).unwrap();
    assert!(summary.contains(": ok, the config of a proxy\n"), "{summary}");
    assert!(summary.contains("sends to     https://localhost:4440"), "{summary}");

    let collector = folder.path().join("collector.toml");
    let tls = "[tls]\nca = 'ca/ca.pem'\ncert = 'ca/collector.pem'\nkey = 'ca/collector.key'\n";
    std::fs::write(&collector, format!("listen = '127.0.0.1:0'\n[sink.null]\n{tls}")).unwrap();
    let summary = check::check(&collector).unwrap();
    assert!(summary.contains(": ok, the config of a collector\n"), "{summary}");
    assert!(summary.contains("sink         null"), "{summary}");
}

#[test]
fn what_the_operator_must_change_exits_78() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f.toml");
    std::fs::write(&file, "[listen]\nudp = ['127.0.0.1']\n").unwrap();
    let failure = done(&["check", "-c", text(&file)]).unwrap_err();
    assert_eq!(failure.exit_code(), 78);
    assert_eq!(failure.to_string().lines().count(), 5, "{failure}");
    let rest = "[listen]\nudp = ['127.0.0.1:0']\n[uplink]\nendpoint = 'https://a:1'\n";
    std::fs::write(&file, format!("{rest}[tls]\nca = 'no.pem'\ncert = 'no.pem'\nkey = 'no.key'\n")).unwrap();
    let failure = done(&["check", "-c", text(&file)]).unwrap_err();
    assert_eq!(failure.exit_code(), 78);
    assert!(failure.to_string().contains("no.pem: there is no such file"), "{failure}");
}

#[test]
fn other_failures_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    done(&["certs", "ca", "--out", text(folder.path())]).unwrap();
    let failure = done(&["certs", "ca", "--out", text(folder.path())]).unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    assert!(failure.to_string().contains("exists already"), "{failure}");
}
