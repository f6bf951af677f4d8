//! With this machine's own kernel: what everyone may ask. What takes rights is in `tests/netlink.rs`.

use super::*;
use crate::batch::Sender;
use crate::flow::Exporter;
use crate::proto::InterfaceSource;
use std::net::{IpAddr, Ipv4Addr};

fn sender(address: IpAddr) -> Sender {
    let exporter = Exporter { address, port: 1 };
    Sender { exporter, domain: 0, agent: None }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn at_the_start_interfaces_of_this_host_have_names() {
    let (book, metrics) = (Book::new(), Metrics::new());
    let (_switch, is_on) = watch::channel(true);
    let _watch = Watch::start(book.clone(), metrics.clone(), is_on).await;
    let mut view = book.view();
    let found = view.interface_anew(&sender(LOOPBACK), 1).unwrap();
    assert_eq!((&*found.name, found.speed, found.source), ("lo", 0, InterfaceSource::Netlink));
    // An address that no host has.
    assert_eq!(view.interface_anew(&sender([192, 0, 2, 1].into()), 1), None);
    assert!(metrics.interfaces.get() >= 1 && metrics.addresses.get() >= 1 && metrics.works.get() == 1);
    assert_eq!(metrics.failures.get(), 0);
}

#[tokio::test]
async fn it_is_switched_off_and_on() {
    let (book, metrics, end) = (Book::new(), Metrics::new(), CancellationToken::new());
    let (switch, is_on) = watch::channel(false);
    let watch = Watch::start(book.clone(), metrics.clone(), is_on).await;
    let mut view = book.view();
    assert_eq!(view.interface_anew(&sender(LOOPBACK), 1), None);
    let course = async {
        let mut knows = async |wanted: bool| {
            while view.interface_anew(&sender(LOOPBACK), 1).is_some() != wanted {
                tokio::task::yield_now().await;
            }
        };
        switch.send_replace(true);
        knows(true).await;
        switch.send_replace(false);
        knows(false).await;
        assert_eq!((metrics.works.get(), metrics.interfaces.get()), (0, 0));
        switch.send_replace(true);
        knows(true).await;
        end.cancel();
    };
    tokio::join!(watch.run(end.clone()), course);
}
