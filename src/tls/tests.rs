use super::issue::Subject;
use super::*;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const CLIENT: Subject<'_> = Subject { name: "edge-1", server: false, dns: &[], ips: &[] };
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SERVER: Subject<'_> = Subject { name: "collector", server: true, dns: &[], ips: &[] };

/// A folder with a CA.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    issue::ca(dir.path()).unwrap();
    dir
}

fn files(dir: &Path, name: &str) -> Files {
    Files {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}.key")),
    }
}

fn issued(dir: &Path, subject: &Subject<'_>) -> Files {
    issue::issue(dir, subject, dir).unwrap();
    files(dir, subject.name)
}

/// Issues what `issue` would not: the parameters are changed before they are signed.
fn issued_with(dir: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Files {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let files = files(dir, name);
    std::fs::write(&files.cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn identity_of(files: &Files) -> Result<Identity, IdentityError> {
    let (_, section) = x509_parser::pem::parse_x509_pem(&std::fs::read(&files.cert).unwrap()).unwrap();
    Identity::from_certificate(&section.contents)
}

type Both = (Result<Connected<DuplexStream>, ConnectError>, std::io::Result<Accepted<DuplexStream>>);

async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, host: &str) -> Both {
    let (near, far) = duplex(1 << 16);
    tokio::join!(connect(client, host, near), accept(server, far))
}

#[tokio::test]
async fn both_ends_agree_on_tls_1_3_with_a_post_quantum_key_exchange() {
    let dir = folder();
    let client = load_client(&issued(dir.path(), &CLIENT)).unwrap();
    let server = load_server(&issued(dir.path(), &SERVER)).unwrap();
    let (near, far) = handshake(client, server, "collector").await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    let expected = Negotiated { version: "1.3", key_exchange: "X25519MLKEM768".to_owned() };
    assert_eq!(near.negotiated, expected);
    assert_eq!(far.negotiated, expected);
    assert_eq!(far.identity.unwrap().as_str(), "edge-1");

    near.stream.write_all(b"flow").await.unwrap();
    near.stream.flush().await.unwrap();
    let mut got = [0; 4];
    far.stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"flow");
}

#[tokio::test]
async fn a_server_is_known_by_each_of_its_names_and_by_no_other() {
    let dir = folder();
    let client = load_client(&issued(dir.path(), &CLIENT)).unwrap();
    let (dns, ips) = (["localhost".to_owned()], [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let server = load_server(&issued(dir.path(), &Subject { dns: &dns, ips: &ips, ..SERVER })).unwrap();
    for name in ["collector", "localhost", "127.0.0.1"] {
        handshake(client.clone(), server.clone(), name).await.0.unwrap();
    }
    let (near, far) = handshake(client.clone(), server.clone(), "elsewhere").await;
    let text = near.unwrap_err().to_string();
    assert!(text.ends_with("not for the name elsewhere, but for: collector, localhost, 127.0.0.1"), "{text}");
    let text = explain(&far.unwrap_err(), "the proxy");
    assert!(text.contains("the name that it asked for"), "what the alert can mean: {text}");
    let (near, _) = handshake(client, server, "not a host").await;
    assert!(matches!(near, Err(ConnectError::Host(_))));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_and_told_so() {
    let dir = folder();
    let with = load_client(&issued(dir.path(), &CLIENT)).unwrap();
    let server = load_server(&issued(dir.path(), &SERVER)).unwrap();
    let mut without = (*with).clone();
    without.client_auth_cert_resolver = Arc::new(NoCertificate);
    let (near, far) = handshake(Arc::new(without), server, "collector").await;
    assert_eq!(explain(&far.unwrap_err(), "the proxy"), "the proxy showed no certificate");
    // The client's handshake is over before the server judges: the verdict comes with the first read.
    let verdict = near.unwrap().stream.read_u8().await.unwrap_err();
    let text = explain(&verdict, "the collector");
    assert!(text.starts_with("the collector refused our certificate: CertificateRequired"), "{text}");
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn certificates_of_another_ca_are_refused_at_both_ends_in_words() {
    let (ours, theirs) = (folder(), folder());
    let client = load_client(&issued(ours.path(), &CLIENT)).unwrap();
    let server = load_server(&issued(theirs.path(), &SERVER)).unwrap();
    let (near, _) = handshake(client, server, "collector").await;
    assert_eq!(
        near.unwrap_err().to_string(),
        "the certificate of the collector is not signed by the CA that we trust (tls.ca)"
    );

    let both_cas = theirs.path().join("both.pem");
    let bundle = [ours.path(), theirs.path()].map(|dir| std::fs::read_to_string(dir.join("ca.pem")).unwrap());
    std::fs::write(&both_cas, bundle.concat()).unwrap();
    let client = load_client(&Files { ca: both_cas, ..files(ours.path(), "edge-1") }).unwrap();
    let server = load_server(&files(theirs.path(), "collector")).unwrap();
    let (near, far) = handshake(client, server, "collector").await;
    assert!(far.is_err());
    let text = explain(&near.unwrap().stream.read_u8().await.unwrap_err(), "the collector");
    assert!(text.starts_with("the collector refused our certificate: UnknownCA"), "{text}");
}

#[test]
fn a_tls_1_2_client_is_refused() {
    // RFC 5246 section 7.4.1.2: a ClientHello without supported_versions.
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x00, 0x41, // record: handshake, 65 bytes
        0x01, 0x00, 0x00, 0x3d, // ClientHello, 61 bytes
        0x03, 0x03, // TLS 1.2
    ];
    hello.extend([7; 32]); // random
    hello.extend([
        0x00, // no session id
        0x00, 0x02, 0xc0, 0x2b, // ECDHE-ECDSA-AES128-GCM-SHA256
        0x01, 0x00, // no compression
        0x00, 0x12, // extensions, 18 bytes
        0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x1d, // groups: x25519
        0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04, // signature schemes
    ]);
    let dir = folder();
    let server = load_server(&issued(dir.path(), &SERVER)).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    server.read_tls(&mut hello.as_slice()).unwrap();
    let refusal = server.process_new_packets().unwrap_err();
    assert!(
        matches!(
            refusal,
            rustls::Error::PeerIncompatible(rustls::PeerIncompatible::SupportedVersionsExtensionRequired)
        ),
        "{refusal:?}"
    );
}

#[test]
fn nothing_is_resumed_and_nothing_sent_early() {
    let dir = folder();
    let server = load_server(&issued(dir.path(), &SERVER)).unwrap();
    assert_eq!(server.send_tls13_tickets, 0);
    assert_eq!(server.max_early_data_size, 0);
    assert!(!server.session_storage.can_cache());
    assert!(!load_client(&issued(dir.path(), &CLIENT)).unwrap().enable_early_data);
}

#[track_caller]
fn assert_refused(result: Result<Arc<ClientConfig>, Error>, role: Role, text: &str) {
    let error = result.err().unwrap();
    assert_eq!(error.role, role, "{error}");
    let said = error.to_string();
    assert!(said.contains(text), "{said}");
    assert!(said.contains(error.file.to_str().unwrap()), "{said}");
}

#[test]
fn files_that_are_missing_cut_short_or_of_another_kind_are_named() {
    let dir = folder();
    let good = issued(dir.path(), &CLIENT);
    let nowhere = dir.path().join("nowhere.pem");
    for (role, files) in [
        (Role::Ca, Files { ca: nowhere.clone(), ..good.clone() }),
        (Role::Cert, Files { cert: nowhere.clone(), ..good.clone() }),
        (Role::Key, Files { key: nowhere.clone(), ..good.clone() }),
    ] {
        assert_refused(load_client(&files), role, "there is no such file");
    }
    assert_refused(
        load_client(&Files { cert: good.key.clone(), ..good.clone() }),
        Role::Cert,
        "no certificate",
    );
    assert_refused(
        load_client(&Files { key: good.cert.clone(), ..good.clone() }),
        Role::Key,
        "no private key",
    );
    assert_refused(load_client(&Files { ca: good.cert.clone(), ..good.clone() }), Role::Ca, "not a CA's");
    let folder = Files { cert: dir.path().to_owned(), ..good.clone() };
    assert_refused(load_client(&folder), Role::Cert, "can not be read");

    let pem = std::fs::read_to_string(&good.cert).unwrap();
    let written = |text: &str| {
        let cert = dir.path().join("written.pem");
        std::fs::write(&cert, text).unwrap();
        load_client(&Files { cert, ..good.clone() })
    };
    assert_refused(written(&pem[..pem.len() / 2]), Role::Cert, "cut short or damaged");
    assert_refused(written(&pem.replacen("MII", "M*I", 1)), Role::Cert, "base64 is broken");
    assert_refused(written("no PEM at all"), Role::Cert, "no certificate in it");
    assert_refused(written(""), Role::Cert, "no certificate in it");
    assert_refused(
        written("-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"),
        Role::Cert,
        "not a valid certificate",
    );
    let sealed = dir.path().join("sealed.key");
    std::fs::write(
        &sealed,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert_refused(load_client(&Files { key: sealed, ..good }), Role::Key, "encrypted with a password");
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = folder();
    let one = issued(dir.path(), &CLIENT);
    let other = issued(dir.path(), &Subject { name: "edge-2", ..CLIENT });
    assert_refused(load_client(&Files { key: other.key, ..one.clone() }), Role::Key, "does not belong to");
    let elsewhere = folder();
    let ca = elsewhere.path().join("ca.pem");
    assert_refused(load_client(&Files { ca, ..one }), Role::Cert, "not signed by the CA in");
}

#[test]
fn certificates_that_can_not_serve_now_are_refused_with_the_reason() {
    let dir = folder();
    let expired = issued_with(dir.path(), "expired", |params| {
        params.not_after = rcgen::date_time_ymd(2021, 3, 4);
    });
    assert_refused(load_client(&expired), Role::Cert, "it expired on 2021-03-04T00:00:00Z");
    let early = issued_with(dir.path(), "early", |params| {
        params.not_before = (SystemTime::now() + 30 * DAY).into();
    });
    assert_refused(load_client(&early), Role::Cert, "not valid before 2");
    let only_server = issued_with(dir.path(), "only-server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_refused(load_client(&only_server), Role::Cert, "may not be used by a TLS client");

    let client = issued(dir.path(), &CLIENT);
    let error = load_server(&client).err().unwrap();
    assert!(error.to_string().contains("may not be used by a TLS server, only by a client"), "{error}");
}

/// A clock in 1970 stands to today's certificate as today's does to one of the far future.
#[test]
fn row_29_a_clock_that_is_not_set_keeps_no_proxy_from_starting() {
    let dir = folder();
    let early = issued_with(dir.path(), "early", |params| {
        params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        params.not_after = rcgen::date_time_ymd(3000, 1, 1);
    });
    load_client(&early).unwrap();
    let now = SystemTime::now();
    assert!(valid_from(&early.cert).unwrap() > now + 365 * DAY);
    assert!(valid_from(&issued(dir.path(), &CLIENT).cert).unwrap() <= now);
    // What `check` tells, and the collector, which has a clock.
    let told = faults(End::Client, Some(&early.ca), Some(&early.cert), Some(&early.key));
    assert!(told[0].to_string().contains("not valid before 2999-01-01"), "{told:?}");
    let early = issued_with(dir.path(), "early-collector", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2999, 1, 1);
        params.not_after = rcgen::date_time_ymd(3000, 1, 1);
    });
    let error = load_server(&early).err().unwrap();
    assert!(error.to_string().contains("not valid before 2999-01-01"), "{error}");
}

#[test]
fn an_identity_is_the_only_uri_else_the_only_dns_name() {
    let dir = folder();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let named = |names: Vec<SanType>| {
        identity_of(&issued_with(dir.path(), "named", |params| params.subject_alt_names = names))
    };
    let ip = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(named(vec![dns("edge-7")]).unwrap().as_str(), "edge-7");
    assert_eq!(named(vec![dns("a"), uri("spiffe://x/edge"), dns("b")]).unwrap().as_str(), "spiffe://x/edge");
    assert_eq!(named(vec![ip.clone(), dns("a")]).unwrap().as_str(), "a");
    assert_eq!(named(vec![dns("a"), dns("b")]), Err(IdentityError::Several { kind: "DNS names", count: 2 }));
    assert_eq!(
        named(vec![uri("spiffe://x/1"), uri("spiffe://x/2"), dns("a")]),
        Err(IdentityError::Several { kind: "URIs", count: 2 })
    );
    assert_eq!(named(vec![ip]), Err(IdentityError::Nothing));
    assert_eq!(named(vec![]), Err(IdentityError::Nothing));
    assert_eq!(named(vec![dns("a b")]), Err(IdentityError::Unusable));
    assert_eq!(named(vec![dns(&"a".repeat(254))]), Err(IdentityError::Unusable));
    assert_eq!(Identity::from_certificate(b"no certificate"), Err(IdentityError::Malformed));
}

#[test]
fn an_issued_client_has_one_name_and_a_closed_key() {
    let dir = folder();
    let client = issued(dir.path(), &CLIENT);
    assert_eq!(identity_of(&client).unwrap().as_str(), "edge-1");
    for key in [&client.key, &dir.path().join("ca.key")] {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    load_server(&issued(dir.path(), &SERVER)).unwrap();
    load_client(&files(dir.path(), "collector")).unwrap();
}

#[test]
fn nothing_is_written_over_and_no_name_leaves_the_folder() {
    let dir = folder();
    let before = std::fs::read(dir.path().join("ca.key")).unwrap();
    assert!(matches!(issue::ca(dir.path()), Err(issue::Error::Exists(_))));
    assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), before);
    issued(dir.path(), &CLIENT);
    assert!(matches!(issue::issue(dir.path(), &CLIENT, dir.path()), Err(issue::Error::Exists(_))));

    for name in ["", ".", "..", "../up", "a/b", "a b", "*.example", "-a", "a-", "a..b", "ä", &"a".repeat(64)]
    {
        let subject = Subject { name, ..CLIENT };
        let refused = issue::issue(dir.path(), &subject, dir.path());
        assert!(matches!(refused, Err(issue::Error::Name(_))), "{name:?}: {refused:?}");
    }
    let dns = ["localhost".to_owned()];
    let two_names = Subject { dns: &dns, ..CLIENT };
    assert!(matches!(issue::issue(dir.path(), &two_names, dir.path()), Err(issue::Error::ClientNames)));
}

#[test]
fn a_ca_that_is_missing_or_mixed_up_is_named() {
    let (one, other) = (folder(), folder());
    let empty = tempfile::tempdir().unwrap();
    let text = issue::issue(empty.path(), &CLIENT, empty.path()).unwrap_err().to_string();
    assert!(text.contains("make a CA first with `flowproxy certs ca --out "), "{text}");
    std::fs::copy(other.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    let mixed = issue::issue(one.path(), &CLIENT, one.path()).unwrap_err();
    assert!(mixed.to_string().contains("do not belong together"), "{mixed}");
}
