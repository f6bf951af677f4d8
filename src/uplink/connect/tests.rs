use super::*;
use crate::collector;
use crate::tls::issue::{self, Subject};
use crate::uplink::machine::System;
use crate::uplink::tests::{Site, endpoint, free_port};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn collector(site: &Site, tls: Arc<tls::ServerConfig>) -> collector::Running {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = collector::Settings::new(listen, tls, site.path("state"));
    settings.sinks.null = true;
    settings.drain_time = Duration::from_millis(100);
    collector::start(settings, collector::Metrics::new(), CancellationToken::new()).await.unwrap()
}

async fn refused(endpoint: &Uri, config: Arc<ClientConfig>) -> String {
    connect(&System, endpoint, config, &Traffic::default()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_connection_tells_what_it_agreed_on_and_counts_its_bytes() {
    let site = Site::new();
    let running = collector(&site, site.server_tls()).await;
    let traffic = Traffic::default();
    let connection =
        connect(&System, &endpoint(running.address()), site.client_tls(), &traffic).await.unwrap();
    assert_eq!(connection.negotiated.version, "1.3");
    assert_eq!(connection.negotiated.key_exchange, "X25519MLKEM768");
    assert_eq!(connection.at.port(), running.address().port());
    assert_eq!(connection.death.cause(), None);
    // A ClientHello with an ML-KEM-768 key share alone is over a kilobyte; so is the answer.
    assert!(traffic.sent_bytes.get() > 1200, "{}", traffic.sent_bytes.get());
    assert!(traffic.received_bytes.get() > 1200, "{}", traffic.received_bytes.get());
    running.stop().await;
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let site = Site::new();
    let nobody = free_port().await;
    let numeric: Uri = format!("https://127.0.0.1:{}", nobody.port()).parse().unwrap();
    assert_eq!(refused(&numeric, site.client_tls()).await, format!("nothing listens at {nobody}"));
}

#[tokio::test]
async fn a_collector_of_another_ca_is_refused() {
    let (ours, theirs) = (Site::new(), Site::new());
    let running = collector(&theirs, theirs.server_tls()).await;
    let said = refused(&endpoint(running.address()), ours.client_tls()).await;
    assert!(
        said.starts_with("the certificate of the collector is not signed by the CA that we trust"),
        "{said}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_collector_of_another_name_is_refused() {
    let site = Site::new();
    let running = collector(&site, site.server_tls()).await;
    let numeric: Uri = format!("https://127.0.0.1:{}", running.address().port()).parse().unwrap();
    let said = refused(&numeric, site.client_tls()).await;
    assert!(
        said.starts_with("the certificate of the collector is not for the name 127.0.0.1, but for:"),
        "{said}"
    );
    running.stop().await;
}

#[tokio::test]
async fn our_certificate_refused_is_told_as_the_collector_meant_it() {
    // The collector trusts its own CA only; we trust both, and show a certificate of ours.
    let (ours, theirs) = (Site::new(), Site::new());
    let both = ours.path("both.pem");
    let cas = [&ours, &theirs].map(|site| std::fs::read_to_string(site.path("ca.pem")).unwrap());
    std::fs::write(&both, cas.concat()).unwrap();
    let running = collector(&theirs, theirs.server_tls()).await;
    let config = tls::load_client(&tls::Files { ca: both, ..ours.files("edge-1") }).unwrap();
    for _ in 0..20 {
        let said = refused(&endpoint(running.address()), config.clone()).await;
        assert!(
            said.starts_with("the collector refused our certificate: UnknownCA: it is not signed"),
            "{said}"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_collector_is_said() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let web = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = socket.shutdown().await;
        socket
    };
    let (_, said) = tokio::join!(web, refused_at(address, site.client_tls()));
    assert!(said.starts_with("the collector does not speak TLS there"), "{said}");

    let silent = async { drop(listener.accept().await.unwrap()) };
    let ((), said) = tokio::join!(silent, refused_at(address, site.client_tls()));
    assert!(said.contains("closed the connection") || said.contains("reset the connection"), "{said}");
}

async fn refused_at(address: SocketAddr, config: Arc<ClientConfig>) -> String {
    refused(&endpoint(address), config).await
}

#[tokio::test]
async fn a_death_keeps_its_first_cause() {
    let site = Site::new();
    let running = collector(&site, site.server_tls()).await;
    let traffic = Traffic::default();
    let connection =
        connect(&System, &endpoint(running.address()), site.client_tls(), &traffic).await.unwrap();
    let death = connection.death.clone();
    let inside: Inside<TcpStream> = {
        let socket = TcpStream::connect(running.address()).await.unwrap();
        let stream = tls::connect(site.client_tls(), "localhost", socket).await.unwrap().stream;
        Inside { first: None, stream, death: death.clone() }
    };
    let cause = |kind: io::ErrorKind| inside.note::<()>(Err(io::Error::from(kind))).unwrap_err();
    cause(io::ErrorKind::ConnectionReset);
    cause(io::ErrorKind::BrokenPipe);
    assert_eq!(death.cause(), Some("the collector reset the connection"));
    running.stop().await;
}

#[tokio::test]
async fn a_server_certificate_serves_an_address_too() {
    let site = Site::new();
    let ips = [std::net::IpAddr::from([127, 0, 0, 1])];
    let subject = Subject { name: "by-address", server: true, dns: &[], ips: &ips };
    issue::issue(&site.path(""), &subject, &site.path("")).unwrap();
    let running = collector(&site, tls::load_server(&site.files("by-address")).unwrap()).await;
    let numeric: Uri = format!("https://127.0.0.1:{}", running.address().port()).parse().unwrap();
    connect(&System, &numeric, site.client_tls(), &Traffic::default()).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let (one, other) = (free_port().await, free_port().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = listener.local_addr().unwrap();
    let (_, at) = dial_any(&System, [one, other, there].into_iter()).await.unwrap().unwrap();
    assert_eq!(at, there);
    let failed = dial_any(&System, [one, other].into_iter()).await.unwrap().unwrap_err();
    assert_eq!(failed.to_string(), format!("nothing listens at {other}"), "the last one's failure");
    assert!(dial_any(&System, [].into_iter()).await.is_none());
}
