//! The endpoints over real loopback sockets.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, Default)]
struct Sick(AtomicBool);

impl Subject for Sick {
    fn metrics(&self) -> String {
        "flowproxy_datagrams_received_total 3\n# EOF\n".to_owned()
    }

    fn alive(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) { Err("the spool cannot be written".to_owned()) } else { Ok(()) }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({ "role": "proxy" })
    }

    fn exporter(&self, wanted: &str) -> Option<serde_json::Value> {
        (wanted == "r 1/ü").then(|| serde_json::json!([]))
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn each_path_answers() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (subject, stop) = (Arc::new(Sick::default()), CancellationToken::new());
    let serving = serve(listener, Arc::clone(&subject) as Arc<dyn Subject>, stop.clone());
    let asking = async {
        let metrics = ask(address, "GET /metrics HTTP/1.1").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("received_total 3\n"), "{metrics}");
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"), "{metrics}");
        assert!(ask(address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET /readyz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        subject.0.store(true, Ordering::Relaxed);
        let sick = ask(address, "GET /readyz HTTP/1.1").await;
        assert!(
            sick.starts_with("HTTP/1.1 503") && sick.ends_with("the spool cannot be written\n"),
            "{sick}"
        );
        assert!(ask(address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET /status HTTP/1.1").await.ends_with("{\"role\":\"proxy\"}"));
        assert!(ask(address, "GET /exporters/r%201%2F%C3%BC HTTP/1.1").await.ends_with("[]"));
        assert!(ask(address, "GET /exporters/r1 HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /status HTTP/1.1").await.starts_with("HTTP/1.1 405"));
        assert!(ask(address, "GET /other HTTP/1.1").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
    };
    let (served, ()) = tokio::join!(serving, asking);
    served.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends() {
    use axum::serve::Listener;
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut limited = limit::Limited::new(listener, 1, MAX_LIFE, CancellationToken::new());
    let _silent = TcpStream::connect(address).await.unwrap();
    let (mut accepted, _) = limited.accept().await;
    let error = accepted.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let _next = TcpStream::connect(address).await.unwrap();
    drop(accepted);
    limited.accept().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    let said =
        format!("admin.listen {address}: the port is taken; stop what listens there or choose another");
    assert_eq!(error.to_string(), said);
}
