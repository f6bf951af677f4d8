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

const PROXY: &str = "[listen]\nudp = ['127.0.0.1:0']\n[uplink]\nendpoint = 'https://localhost:4440'\n";
const COLLECTOR: &str = "listen = '127.0.0.1:0'\n[sink.null]\n";
const NO_TLS: &str = "[tls]\nca = 'no-ca.pem'\ncert = 'no.pem'\nkey = 'no.key'\n";

/// One run of `check` tells all: another would find nothing new.
#[test]
fn faults_of_the_config_and_of_the_files_it_names_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("f.toml");
    let told = |content: &str| {
        std::fs::write(&file, content).unwrap();
        let failure = done(&["check", "-c", text(&file)]).unwrap_err();
        assert_eq!(failure.exit_code(), 78);
        failure.to_string()
    };
    for (start, command) in [(PROXY, "run"), (COLLECTOR, "collect")] {
        let said = told(&format!("{start}{NO_TLS}[shutdown]\ndeadline = 'soon'\n[log]\nfilter = 7\n"));
        let failure = done(&[command, "-c", text(&file)]).unwrap_err();
        assert_eq!((failure.exit_code(), failure.to_string()), (78, said.clone()), "a start tells as much");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 5, "{said}");
        assert!(lines[0].contains("shutdown.deadline") && lines[1].contains("log.filter"), "{said}");
        for (line, name) in lines[2..].iter().zip(["no-ca.pem", "no.pem", "no.key"]) {
            assert!(line.contains(&format!("/{name}: there is no such file")), "{said}");
        }
    }
    // Files that are there: each is read, and held against the others.
    done(&["certs", "ca", "--out", text(folder)]).unwrap();
    let other = folder.join("other");
    done(&["certs", "ca", "--out", text(&other)]).unwrap();
    let issue = |name: &str| {
        done(&["certs", "issue", "--ca", text(&other), "--name", name, "--out", text(folder)]).unwrap();
    };
    issue("edge1");
    issue("edge2");
    let said = told(&format!("{PROXY}[tls]\nca = 'ca.pem'\ncert = 'edge1.pem'\nkey = 'edge2.key'\n"));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("edge2.key: it does not belong to the certificate"), "{said}");
    assert!(said.contains("edge1.pem: it is not signed by the CA"), "{said}");
    // What names no file is told once, and the others are read all the same.
    let said = told(&format!("{PROXY}[tls]\nca = 7\ncert = 'edge1.key'\n"));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("tls.key is missing") && lines[1].contains("tls.ca = 7"), "{said}");
    assert!(lines[2].contains("edge1.key: there is no certificate in it"), "{said}");
    // A file that is no TOML names nothing.
    assert!(!told("[tls]\nca = 'no.pem'\n= what").contains("no such file"));
}

#[test]
fn the_config_of_the_other_role_is_named_with_what_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let said = |words: &[&str], name: &str, start: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{start}{NO_TLS}")).unwrap();
        let failure = done(&[words, &["-c", text(&file)]].concat()).unwrap_err();
        assert_eq!(failure.exit_code(), 78);
        failure.to_string().replace(text(folder.path()), "")
    };
    assert_eq!(
        said(&["run"], "c.toml", COLLECTOR),
        "/c.toml: is the config of a collector, and `run` starts a proxy; `flowproxy collect -c /c.toml` starts \
         the collector"
    );
    assert_eq!(
        said(&["collect"], "p.toml", PROXY),
        "/p.toml: is the config of a proxy, and `collect` starts a collector; `flowproxy run -c /p.toml` starts \
         the proxy"
    );
    assert_eq!(
        said(&["exporters"], "c.toml", COLLECTOR),
        "/c.toml: is the config of a collector; exporters send to a proxy: give the config of that"
    );
    // Where it is not plain whose it is, its faults are told.
    assert!(said(&["run"], "b.toml", "[listen]\nudp = []\n[sink.null]\n").contains("sink.null"));
}

#[test]
fn where_the_admin_port_is_must_be_host_and_port() {
    for (given, wrong) in [
        ("foo", "the port is missing"),
        ("127.0.0.1", "the port is missing"),
        ("::1", "an IPv6 address stands in brackets"),
        ("::1:9441", "an IPv6 address stands in brackets"),
        (":9441", "the host is missing"),
        ("localhost:99999", "99999 is no port"),
        ("localhost:0", "0 is no port"),
        ("http://127.0.0.1:9441", "it is a URL"),
    ] {
        let said = typed(&["exporters", "--admin", given]).unwrap_err().to_string();
        assert!(said.contains(&format!("'{given}' for '--admin <HOST:PORT>'")), "{said}");
        assert!(said.contains(wrong) && said.contains("127.0.0.1:9441"), "{given}: {said}");
    }
    for given in ["127.0.0.1:9441", "[::1]:9441", "edge.example:1"] {
        assert!(typed(&["exporters", "--admin", given]).is_ok(), "{given}");
    }
}
