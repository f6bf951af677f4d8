//! A device's pace, and what it takes for started anew.

use super::*;
use crate::config::{Access, Secret, Snmp};
use crate::enrich::Entry;
use crate::enrich::snmp::credential::Credentials;

const INTERVAL: Duration = Duration::from_secs(300);
const MIDDLE: (Duration, f64) = (INTERVAL, 0.5);

fn credential() -> Arc<Credential> {
    let settings = Snmp {
        networks: vec!["0.0.0.0/0".parse().unwrap()],
        port: 161,
        access: Access::Community(Secret::new(b"public").unwrap()),
        interval: INTERVAL,
        timeout: Duration::from_secs(2),
        retries: 2,
        is_tried: false,
    };
    Credentials::new(&[settings], &Credentials::default()).of([192, 0, 2, 1].into()).remove(0)
}

fn system(uptime: u32, boots: u32) -> System {
    System { uptime: Some(uptime), boots: Some(boots), ..System::default() }
}

fn table(names: &[(u32, &str)]) -> Arc<Table> {
    let entry = |name: &str| Entry { name: name.into(), ..Entry::default() };
    let interfaces = names.iter().map(|(index, name)| (*index, entry(name))).collect();
    Arc::new(Table { interfaces, told: 1 })
}

fn read_at(device: &mut Device, at: Instant, uptime: u32) {
    let told = Told { at, system: system(uptime, 3), table: table(&[(1, "lo"), (2, "eth0")]) };
    device.read(told, credential(), MIDDLE);
}

/// How long a device that fails so is left alone, one failure after the other.
fn waits(error: &Error, failures: usize) -> Vec<u64> {
    let now = Instant::now();
    let mut device = Device::new(now);
    let mut wait = || {
        device.fail(error.clone(), now, MIDDLE);
        device.due.duration_since(now).as_secs()
    };
    (0..failures).map(|_| wait()).collect()
}

#[test]
fn a_new_device_is_asked_at_once_and_then_around_its_interval() {
    let now = Instant::now();
    let mut device = Device::new(now);
    assert_eq!(device.due, now);
    read_at(&mut device, now, 100);
    assert_eq!(device.due, now + INTERVAL);
    for (share, seconds) in [(0.0, 270), (1.0, 330)] {
        let told = device.told.clone().unwrap();
        device.read(told, credential(), (INTERVAL, share));
        assert_eq!(device.due, now + Duration::from_secs(seconds));
    }
}

#[test]
fn who_fails_is_asked_less_and_less() {
    assert_eq!(waits(&Error::NoAnswer, 9), [300, 600, 1200, 2400, 3600, 3600, 3600, 3600, 3600]);
    assert_eq!(waits(&Error::WrongAuthentication, 4), [900, 1800, 3600, 3600]);
    assert_eq!(waits(&Error::Restarted, 3), [1, 2, 4]);
}

#[test]
fn after_many_failures_it_is_only_probed_until_it_answers() {
    let now = Instant::now();
    let mut device = Device::new(now);
    for failures in 1..=PROBED_AFTER {
        assert!(!device.is_probed(), "{failures}");
        device.fail(Error::NoAnswer, now, MIDDLE);
    }
    assert!(device.is_probed());
    read_at(&mut device, now, 100);
    assert!(!device.is_probed() && device.failed.is_none());
}

#[test]
fn uptime_and_boots_that_go_back_are_a_new_start() {
    let now = Instant::now();
    let mut device = Device::new(now);
    assert!(!device.started_anew(&system(5, 1), now), "nothing is known of before");
    read_at(&mut device, now, 10_000);
    let later = now + Duration::from_secs(300);
    assert!(!device.started_anew(&system(40_000, 3), later));
    assert!(device.started_anew(&system(900, 3), later));
    assert!(device.started_anew(&system(40_000, 4), later));
    assert!(!device.started_anew(&System::default(), later), "it does not tell");
}

#[test]
fn an_uptime_that_has_run_through_is_no_new_start() {
    let now = Instant::now();
    let mut device = Device::new(now);
    read_at(&mut device, now, u32::MAX - 10_000);
    let later = now + Duration::from_secs(300);
    assert!(!device.started_anew(&system(20_000, 3), later));
    assert!(device.started_anew(&system(500_000, 3), later), "it cannot have come so far");
}

#[test]
fn a_number_with_another_name_is_noticed() {
    let now = Instant::now();
    let mut device = Device::new(now);
    assert!(!device.is_renamed(&table(&[(1, "lo")])));
    read_at(&mut device, now, 1);
    assert!(!device.is_renamed(&table(&[(1, "lo"), (2, "eth0"), (3, "eth1")])));
    assert!(!device.is_renamed(&table(&[(1, "lo")])));
    assert!(device.is_renamed(&table(&[(1, "lo"), (2, "eth1")])));
}

#[test]
fn a_restart_seen_in_the_flow_asks_at_once_but_not_in_a_storm() {
    let now = Instant::now();
    let mut device = Device::new(now);
    read_at(&mut device, now, 1);
    device.restarted(now + Duration::from_millis(300));
    assert!(device.told.is_none());
    assert_eq!(device.due, now + LEAST);
    let mut failing = Device::new(now);
    failing.fail(Error::WrongAuthentication, now, MIDDLE);
    let due = failing.due;
    failing.restarted(now);
    assert_eq!(failing.due, due, "a restart does not make a wrong password right");
}

#[test]
fn what_was_read_while_it_started_anew_is_read_again() {
    let now = Instant::now();
    let mut device = Device::new(now);
    device.is_asked = true;
    device.restarted(now);
    assert!(device.again);
    read_at(&mut device, now, 1);
    assert_eq!(device.due, now + LEAST);
    assert!(!device.again);
}

#[test]
fn without_flow_it_is_forgotten_but_not_while_it_is_asked() {
    let now = Instant::now();
    let mut device = Device::new(now);
    let later = now + IDLE + Duration::from_secs(1);
    assert!(!device.is_idle(now + IDLE) && device.is_idle(later));
    device.is_asked = true;
    assert!(!device.is_idle(later));
}
