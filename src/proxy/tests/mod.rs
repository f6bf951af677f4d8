//! A proxy in this process: what it tells, how it takes a new config, how it ends.

use super::*;
use crate::tls::issue;
use std::path::Path;

mod tcp;

fn written(folder: &Path, more: &str) -> Result<config::Proxy, Faults> {
    let text = format!(
        "[listen]\nudp = ['127.0.0.1:0', '127.0.0.1:0']\nraw = '127.0.0.1:0'\nshards = 2\n\
         [uplink]\nendpoint = 'https://localhost:9'\n\
         [tls]\nca = 'ca.pem'\ncert = 'edge1.pem'\nkey = 'edge1.key'\n\
         [admin]\nlisten = '127.0.0.1:0'\n[shutdown]\ndeadline = '0s'\n{more}"
    );
    let file = folder.join("proxy.toml");
    std::fs::write(&file, text).unwrap();
    config::proxy(&file)
}

fn with_certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    issue::ca(folder.path()).unwrap();
    let subject = issue::Subject { name: "edge1", server: false, dns: &[], ips: &[] };
    issue::issue(folder.path(), &subject, folder.path()).unwrap();
    folder
}

#[tokio::test]
async fn it_tells_where_it_listens_and_ends_in_order() {
    let folder = with_certificates();
    let running = start(written(folder.path(), "").unwrap()).await.unwrap();
    assert_eq!((running.udp().len(), running.raw().len()), (2, 1));
    let ports: Vec<_> = running.udp().iter().chain(running.raw()).map(SocketAddr::port).collect();
    assert!(ports.iter().all(|port| *port != 0));

    let status = running.status();
    assert_eq!(status["listen"]["udp"][1], running.udp()[1].to_string());
    assert_eq!(status["admin"], running.admin().to_string());
    assert_eq!(status["spool"]["writable"], true);
    assert_eq!(status["ledger"]["total"]["records"]["decoded"], 0);
    let metrics = running.facts.metrics();
    for name in ["datagrams_received", "records_decoded", "records_committed", "uplink_sent_bytes"] {
        let sample = format!("flowproxy_{name}_total 0");
        assert_eq!(metrics.lines().filter(|line| *line == sample).count(), 1, "{sample}");
    }
    running.stop().await;
    // Spool and sockets are free again.
    let again = start(written(folder.path(), "").unwrap()).await.unwrap();
    again.stop().await;
}

#[tokio::test]
async fn what_was_received_last_is_in_the_spool_when_it_ends() {
    let folder = with_certificates();
    let running = start(written(folder.path(), "[batch]\nmax_delay = '1h'\n").unwrap()).await.unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..5_u8 {
        socket.send_to(&[number; 40], running.raw()[0]).unwrap();
    }
    let (ingest, spool) = (running.ingest().clone(), running.spool().clone());
    running.stop().await;
    assert_eq!((ingest.raw_accepted.get(), ingest.raw_batched.get()), (5, 5));
    assert_eq!(spool.usage().batches, 1);
    drop(spool);
    let again = start(written(folder.path(), "").unwrap()).await.unwrap();
    assert_eq!(again.status()["spool"]["found_at_start"]["batches"], 1);
    again.stop().await;
}

#[tokio::test]
async fn a_new_config_is_taken_whole_or_not_at_all() {
    let folder = with_certificates();
    let running = start(written(folder.path(), "").unwrap()).await.unwrap();
    let fault = |running: &Running| running.status()["reload"]["fault"].as_str().map(str::to_owned);

    assert!(!running.reload(written(folder.path(), "[batch]\nmax_delay = 'never'\n")));
    assert!(fault(&running).unwrap().contains("batch.max_delay = \"never\""));
    assert_eq!(running.config().batch, config::Batch::default());

    assert!(!running.reload(written(folder.path(), "[batch]\nmax_delay = '1s'\n[spool]\ndir = 'other'\n")));
    assert!(fault(&running).unwrap().starts_with("spool.dir cannot change while the proxy runs"));
    assert_eq!(running.live.batch.load().max_delay, Duration::from_millis(500));

    assert!(running.reload(written(folder.path(), "[batch]\nmax_delay = '1s'\nmax_records = 7\n")));
    assert_eq!(fault(&running), None);
    assert_eq!(running.live.batch.load().max_delay, Duration::from_secs(1));
    assert_eq!(running.live.batch.load().limits.max_records, 7);

    std::fs::write(folder.path().join("edge1.key"), "half").unwrap();
    assert!(!running.reload(written(folder.path(), "")));
    assert!(fault(&running).unwrap().contains("edge1.key"));
    assert_eq!(running.config().batch.max_records, 7);
    running.stop().await;
}

#[tokio::test]
async fn what_is_taken_is_named() {
    let folder = with_certificates();
    let running = start(written(folder.path(), "").unwrap()).await.unwrap();
    let other = with_certificates();
    let mut config = written(other.path(), "").unwrap();
    config.listen.udp = vec![running.udp()[0]];
    let error = start(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&running.udp()[0].to_string()), "{error}");

    config.listen.udp = vec!["127.0.0.1:0".parse().unwrap()];
    config.admin.listen = running.admin();
    let error = start(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains(&running.admin().to_string()), "{error}");

    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    config.spool.dir = running.config().spool.dir.clone();
    let error = start(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("in use by another process"), "{error}");

    config.tls.cert = other.path().join("nothing.pem");
    let error = start(config).await.unwrap_err();
    assert!(error.to_string().contains("nothing.pem"), "{error}");
    running.stop().await;
}
