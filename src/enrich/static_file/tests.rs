//! What the file says of whom, in both forms, and every way in which it can be wrong.

use super::*;
use crate::flow::Exporter;
use std::path::PathBuf;

struct Written {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl Written {
    fn new(name: &'static str, text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        Self { folder, name }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    fn read(&self) -> StaticFile {
        StaticFile::read(&self.path(), 5_000).unwrap()
    }

    /// The faults, without the folder's name.
    fn faults(&self) -> Vec<String> {
        let faults = StaticFile::read(&self.path(), 0).expect_err("a fault");
        let folder = format!("{}/", self.folder.path().display());
        faults.0.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

fn toml(text: &str) -> StaticFile {
    Written::new("i.toml", text).read()
}

fn csv(text: &str) -> StaticFile {
    Written::new("i.CSV", text).read()
}

/// The only fault of a TOML file.
fn fault(text: &str) -> String {
    only(Written::new("i.toml", text).faults())
}

/// The only fault of a CSV file.
fn csv_fault(text: &str) -> String {
    only(Written::new("i.csv", text).faults())
}

fn only(mut faults: Vec<String>) -> String {
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

fn sender(address: &str, port: u16, domain: u32) -> Sender {
    Sender { exporter: Exporter { address: address.parse().unwrap(), port }, domain, agent: None }
}

fn behind(agent: &str, sender: Sender) -> Sender {
    Sender { agent: Some(agent.parse().unwrap()), ..sender }
}

/// Name, site and labels.
fn text(file: &StaticFile, sender: &Sender) -> Option<(String, String, String)> {
    let text = file.sender(sender)?;
    let labels: Vec<_> = text.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some((text.name.clone(), text.site.clone(), labels.join(",")))
}

fn texts(name: &str, site: &str, labels: &str) -> Option<(String, String, String)> {
    Some((name.to_owned(), site.to_owned(), labels.to_owned()))
}

/// Name, description, speed.
fn interface(file: &StaticFile, sender: &Sender, index: u32) -> Option<(String, String, u64)> {
    let entry = file.table(sender)?.interfaces.get(&index)?;
    Some((entry.name.to_string(), entry.description.to_string(), entry.speed))
}

fn interfaces(name: &str, description: &str, speed: u64) -> Option<(String, String, u64)> {
    Some((name.to_owned(), description.to_owned(), speed))
}

const TWO: &str = "
    [[exporter]]
    address = '127.0.0.1'
    port = 40001
    name = 'r1'
    site = 'paris'
    [exporter.labels]
    rack = '12'
    units = 2
    spare = false
    [exporter.interfaces.7]
    name = 'eth1'
    description = 'uplink to Paris'
    speed = 10000000000

    [[exporter]]
    address = '127.0.0.1'
    port = 40002
    name = 'r2'
    device = '10.0.0.2'
    interfaces = { 7 = { name = 'ge-0/0/7' } }
";

#[test]
fn exporters_at_one_address_are_told_apart_by_their_ports() {
    let file = toml(TWO);
    let (first, second) = (sender("127.0.0.1", 40_001, 0), sender("::ffff:127.0.0.1", 40_002, 9));
    assert_eq!(text(&file, &first), texts("r1", "paris", "rack=12,spare=false,units=2"));
    assert_eq!(text(&file, &second), texts("r2", "", ""));
    assert_eq!(interface(&file, &first, 7), interfaces("eth1", "uplink to Paris", 10_000_000_000));
    assert_eq!(interface(&file, &second, 7), interfaces("ge-0/0/7", "", 0));
    assert_eq!(interface(&file, &first, 8), None);
    assert_eq!(
        (Operator::device(&file, &first), Operator::device(&file, &second)),
        (None, "10.0.0.2".parse().ok())
    );
    let other = sender("127.0.0.1", 40_003, 0);
    assert_eq!((text(&file, &other), file.table(&other)), (None, None));
    assert_eq!((file.exporters(), file.interfaces()), (2, 2));
    assert_eq!(file.table(&first).unwrap().told, 5_000);
}

#[test]
fn the_most_specific_entry_comes_first_and_the_others_fill_its_gaps() {
    let file = toml(
        "
        [[exporter]]
        address = '10.0.0.1'
        name = 'all'
        site = 'paris'
        labels = { a = '1', b = '1', c = '1', d = '1' }
        interfaces.1 = { name = 'all1', description = 'of all', speed = 1 }
        interfaces.2 = { name = 'all2' }
        [[exporter]]
        address = '10.0.0.1'
        domain = 7
        name = 'domain'
        labels = { b = '2', c = '2', d = '2' }
        interfaces.1 = { name = 'domain1', description = 'of the domain' }
        [[exporter]]
        address = '10.0.0.1'
        port = 9
        labels = { c = '3', d = '3' }
        interfaces.1.name = 'port1'
        [[exporter]]
        address = '10.0.0.1'
        port = 9
        domain = 8
        name = 'both'
        labels = { d = '4' }
        ",
    );
    let at = |port, domain| sender("10.0.0.1", port, domain);
    assert_eq!(text(&file, &at(1, 1)), texts("all", "paris", "a=1,b=1,c=1,d=1"));
    assert_eq!(interface(&file, &at(1, 1), 1), interfaces("all1", "of all", 1));
    assert_eq!(text(&file, &at(1, 7)), texts("domain", "paris", "a=1,b=2,c=2,d=2"));
    assert_eq!(interface(&file, &at(1, 7), 1), interfaces("domain1", "of the domain", 1));
    assert_eq!(interface(&file, &at(1, 7), 2), interfaces("all2", "", 0));
    assert_eq!(text(&file, &at(9, 1)), texts("all", "paris", "a=1,b=1,c=3,d=3"));
    assert_eq!(interface(&file, &at(9, 1), 1), interfaces("port1", "of all", 1));
    // No entry is of this port and this domain; one of each is.
    assert_eq!(text(&file, &at(9, 7)), texts("domain", "paris", "a=1,b=2,c=3,d=3"));
    assert_eq!(interface(&file, &at(9, 7), 1), interfaces("port1", "of the domain", 1));
    assert_eq!(text(&file, &at(9, 8)), texts("both", "paris", "a=1,b=1,c=3,d=4"));
    assert_eq!(interface(&file, &at(9, 8), 1), interfaces("port1", "of all", 1));
    assert_eq!(text(&file, &sender("10.0.0.2", 9, 8)), None);
}

#[test]
fn the_agent_of_sflow_comes_before_the_source_address() {
    let file = toml(
        "
        [[exporter]]
        address = '203.0.113.7'
        name = 'gateway'
        site = 'branch'
        device = '10.9.9.9'
        labels.isp = 'x'
        interfaces.1.name = 'wan'
        [[exporter]]
        address = '10.0.0.1'
        name = 'switch'
        interfaces.7.name = 'e7'
        [[exporter]]
        address = '10.0.0.3'
        domain = 5
        name = 'five'
        ",
    );
    let source = sender("203.0.113.7", 6_343, 5);
    let switch = behind("10.0.0.1", source);
    assert_eq!(text(&file, &switch), texts("switch", "branch", "isp=x"));
    assert_eq!(interface(&file, &switch, 7), interfaces("e7", "", 0));
    assert_eq!(interface(&file, &switch, 1), None, "it is an interface of the gateway");
    assert_eq!(Operator::device(&file, &switch), None);
    let unknown = behind("10.0.0.2", source);
    assert_eq!(text(&file, &unknown), texts("gateway", "branch", "isp=x"));
    assert_eq!(interface(&file, &unknown, 1), interfaces("wan", "", 0));
    assert_eq!(text(&file, &behind("203.0.113.7", source)), texts("gateway", "branch", "isp=x"));
    assert_eq!(text(&file, &behind("10.0.0.3", source)), texts("five", "branch", "isp=x"));
    let no_entry_for_the_source = behind("10.0.0.1", sender("203.0.113.8", 6_343, 0));
    assert_eq!(text(&file, &no_entry_for_the_source), texts("switch", "", ""));
}

#[test]
fn tables_that_are_the_same_are_kept_once() {
    let file = toml(
        "
        [[exporter]]
        address = '10.0.0.1'
        interfaces.1.name = 'a'
        [[exporter]]
        address = '10.0.0.1'
        port = 1
        name = 'r1'
        [[exporter]]
        address = '10.0.0.1'
        port = 2
        name = 'r2'
        ",
    );
    let [first, second] = [1, 2].map(|port| file.table(&sender("10.0.0.1", port, 0)).unwrap());
    assert!(Arc::ptr_eq(first, second));
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(toml("").exporters(), 0);
    assert_eq!(toml("# nothing\n").exporters(), 0);
    assert_eq!(csv("address\n").exporters(), 0);
}

#[test]
fn csv_says_the_same() {
    let file =
        csv("\u{feff}address,port,domain,device,name,site,label.rack,index,interface,description,speed\n\
        # a comment\n\
        127.0.0.1,40001,,,r1,paris,12,7,eth1,\"uplink, to Paris\",10000000000\n\
        127.0.0.1,40001,,,,,,8,eth2,,\n\
        \n\
        127.0.0.1 , 40002 , 3 , 10.0.0.2 , r2 , , , 7 , ge-0/0/7 , ,\n\
        127.0.0.1,40003,,,r3,,,,,,\n");
    let at = |port, domain| sender("127.0.0.1", port, domain);
    assert_eq!(text(&file, &at(40_001, 0)), texts("r1", "paris", "rack=12"));
    assert_eq!(interface(&file, &at(40_001, 0), 7), interfaces("eth1", "uplink, to Paris", 10_000_000_000));
    assert_eq!(interface(&file, &at(40_001, 0), 8), interfaces("eth2", "", 0));
    assert_eq!(text(&file, &at(40_002, 3)), texts("r2", "", ""));
    assert_eq!(text(&file, &at(40_002, 4)), None);
    assert_eq!(Operator::device(&file, &at(40_002, 3)), "10.0.0.2".parse().ok());
    assert_eq!((text(&file, &at(40_003, 0)), file.table(&at(40_003, 0))), (texts("r3", "", ""), None));
    assert_eq!((file.exporters(), file.interfaces()), (3, 3));
}

#[test]
fn csv_needs_no_more_columns_than_it_uses() {
    let file = csv("name,address\nr1,2001:db8::1\nr1,2001:db8::1\n");
    assert_eq!(text(&file, &sender("2001:db8::1", 1, 1)), texts("r1", "", ""));
    assert_eq!(file.exporters(), 1);
}

#[test]
fn all_faults_are_told_at_once_with_their_lines() {
    let faults = Written::new(
        "i.toml",
        "
[[exporter]]
address = '300.0.0.1'
port = 0
nam = 'r1'
[exporter.interfaces.0]
name = 'x'
[exporter.interfaces.7]
name = 7
speed = -1
alias = 'x'
[[exporter]]
name = 'r2'
[[exporter]]
address = '10.0.0.1'
[[exporter]]
address = '::ffff:10.0.0.1'
[other]
",
    )
    .faults();
    let expected = [
        "i.toml:3: exporter.address = '300.0.0.1' is no IP address; allowed: an IP address such as \"192.0.2.7\" or \
         \"2001:db8::7\"",
        "i.toml:4: exporter.port = 0 is too small; allowed: a whole number from 1 to 65535",
        "i.toml:5: exporter.nam = 'r1' does not exist; allowed: address, port, domain, device, name, site, labels, \
         interfaces",
        "i.toml:6: exporter.interfaces.0 is too small; allowed: a whole number from 1 to 4294967295",
        "i.toml:9: exporter.interfaces.7.name = 7 is a number; allowed: text",
        "i.toml:10: exporter.interfaces.7.speed = -1 is too small; allowed: a whole number from 0 to 1000000000000000",
        "i.toml:11: exporter.interfaces.7.alias = 'x' does not exist; allowed: name, description, speed",
        "i.toml:12: exporter has no address; allowed: address = \"192.0.2.7\" in each",
        "i.toml:16: exporter is of the same address, port and domain as the one in line 14; allowed: each exporter once",
        "i.toml:18: other does not exist; allowed: [[exporter]]",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn what_is_no_exporter_is_told() {
    assert!(fault("exporter = 7").starts_with("i.toml:1: exporter = 7 is a number"));
    assert!(fault("exporter = [7]").starts_with("i.toml:1: exporter is a number"));
    assert!(fault("[exporter]\naddress = '10.0.0.1'").starts_with("i.toml:1: exporter is a section"));
    let of = |line: &str| fault(&format!("[[exporter]]\naddress = '10.0.0.1'\n{line}"));
    assert!(
        of("interfaces = 7").starts_with("i.toml:3: exporter.interfaces = 7 is a number; allowed: a section")
    );
    assert!(of("interfaces.7 = 'x'").contains("exporter.interfaces.7 = 'x' is text; allowed: a section"));
    assert!(of("interfaces.7 = {}").contains("exporter.interfaces.7 says nothing"));
    assert!(of("interfaces.x.name = 'x'").contains("exporter.interfaces.x is no number"));
    assert!(of("interfaces.07.name = 'x'").contains("exporter.interfaces.07 is no number"));
    assert!(of("interfaces.4294967296.name = 'x'").contains("is too large"));
    assert!(of("interfaces.7.speed = 1000000000000001").contains("is too large"));
    assert!(of("interfaces.7.speed = 1.5").contains("is a number with a fraction"));
    assert!(of("labels = 'x'").contains("is text; allowed: a section"));
    assert!(of("labels.x = [1]").contains("exporter.labels.x is a list; allowed: text"));
    assert!(of("labels.x = ''").contains("is empty"));
    assert!(of("labels.'' = 'x'").contains("is empty"));
    assert!(of("name = ' '").contains("is empty"));
    assert!(of("name = \"a\\u001b[0m\"").contains("has control characters in it"));
    assert!(of("device = '0.0.0.0'").contains("is nobody's address"));
    assert!(of("domain = 4294967296").contains("is too large"));
    assert!(of("port = '7'").contains("is text; allowed: a whole number from 1 to 65535"));
    assert!(of("name = 'a'\nname = 'b'").contains("i.toml:4: is not TOML: duplicate key"));
    assert!(of("port = ").contains("i.toml:3: is not TOML"));
}

#[test]
fn nothing_grows_without_a_bound() {
    let of = |line: &str| fault(&format!("[[exporter]]\naddress = '10.0.0.1'\n{line}"));
    let long = "x".repeat(129);
    for line in [format!("name = '{long}'"), format!("site = '{long}'"), format!("labels.{long} = 'x'")] {
        let fault = of(&line);
        assert!(fault.contains("is too long; allowed: text of 1 to 128 bytes"), "{fault}");
        assert!(fault.len() < 600, "{fault}");
    }
    assert!(of(&format!("interfaces.1.description = '{}'", "x".repeat(257))).contains("1 to 256 bytes"));
    let labels: String = (0..33).map(|at| format!("labels.l{at} = 'x'\n")).collect();
    assert!(of(&labels).contains("is one too many; allowed: 32 labels"));
    let labels: String = (0..8).map(|at| format!("labels.l{at} = '{}'\n", "x".repeat(127))).collect();
    assert!(of(&labels).contains("has 1032 bytes of name, site and labels for an exporter at 10.0.0.1"));
    let interfaces: String = (1..=16_385).map(|at| format!("interfaces.{at}.speed = 1\n")).collect();
    assert!(of(&interfaces).contains("is one too many; allowed: 16384 interfaces of one exporter"));
    let rows: String = (1..=16_400).map(|at| format!("10.0.0.1,{at},1\n")).collect();
    let faults = Written::new("i.csv", format!("address,index,speed\n{rows}")).faults();
    assert_eq!(faults.len(), 1, "told once: {faults:?}");

    let exporters: String =
        (0..10_001).map(|at| format!("[[exporter]]\naddress = '10.1.{}.{}'\n", at / 256, at % 256)).collect();
    assert_eq!(fault(&exporters), "i.toml: has 10001 entries; allowed: 10000 exporters");
    let rows: String = (1..=500).map(|at| format!("10.0.0.1,{at}\n")).collect();
    let faults = Written::new("i.csv", format!("address,index\n{rows}")).faults();
    assert_eq!(faults.len(), 101);
    assert!(faults[100].contains("has 400 more faults"), "{}", faults[100]);
    let rows: String =
        (0..250_001).map(|at| format!("10.0.0.{},{},1\n", at % 200 + 1, at / 200 + 1)).collect();
    assert_eq!(
        csv_fault(&format!("address,index,speed\n{rows}")),
        "i.csv: has 250001 interfaces; allowed: 250000 interfaces in all"
    );
    assert!(csv_fault(&"#".repeat((32 << 20) + 1)).contains("i.csv: is too long"));
}

#[test]
fn ports_and_domains_do_not_multiply_without_a_bound() {
    let port = |at: usize| format!("10.0.0.1,{at},\n");
    let domain = |at: usize| format!("10.0.0.1,,{at}\n");
    let rows: String = (1..=317).flat_map(|at| [port(at), domain(at)]).collect();
    assert!(
        csv_fault(&format!("address,port,domain\n{rows}")).contains("too many entries by port and by domain")
    );
    let rows: String = (1..=316).flat_map(|at| [port(at), domain(at)]).collect();
    assert_eq!(csv(&format!("address,port,domain\n{rows}")).exporters(), 632);

    // A table of 16,000 for each of 70 ports, with something of each port's own.
    let common = (1..=16_000).map(|at| format!("10.0.0.1,,{at},x\n"));
    let own = (1..=70).map(|port| format!("10.0.0.1,{port},1,y\n"));
    let rows: String = common.chain(own).collect();
    assert!(csv_fault(&format!("address,port,index,interface\n{rows}")).contains("too many entries by port"));
}

#[test]
fn a_file_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| StaticFile::read(&folder.path().join(name), 0).expect_err("a fault").to_string();
    assert!(of("missing.toml").contains("missing.toml: cannot be read"));
    std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
    assert!(of("folder.toml").contains("folder.toml: is no file"));
    assert!(fault_of_bytes(b"# \xff").contains("is not UTF-8 from byte 2 on"));
}

fn fault_of_bytes(bytes: &[u8]) -> String {
    only(Written::new("i.toml", bytes).faults())
}

#[test]
fn every_fault_of_csv_is_told_with_its_line() {
    let head = "address,port,name,site,device,label.a,index,interface,speed";
    let faults = Written::new(
        "i.csv",
        format!(
            "{head}\n10.0.0.1,1,r1,paris,10.0.0.9,x,7,eth7,1\n\
             10.0.0.1,1,r2,rome,10.0.0.8,y,7,eth8,\n\
             ten,0,,,,,0,,x\n\
             10.0.0.1,1\n\
             ,1,,,,,,,\n\
             10.0.0.1,1,,,,,,eth9,\n\
             10.0.0.1,1,,,,,9,,\n"
        ),
    )
    .faults();
    let expected = [
        "i.csv:3: name is another than in an earlier row of this exporter; allowed: the same, or nothing",
        "i.csv:3: site is another than in an earlier row of this exporter; allowed: the same, or nothing",
        "i.csv:3: device is another than in an earlier row of this exporter; allowed: the same, or nothing",
        "i.csv:3: label.a is another than in an earlier row of this exporter; allowed: the same, or nothing",
        "i.csv:3: index = 7 is there twice; allowed: each interface of an exporter once",
        "i.csv:4: address = ten is no IP address; allowed: an IP address such as \"192.0.2.7\" or \"2001:db8::7\"",
        "i.csv:4: port = 0 is too small; allowed: a whole number from 1 to 65535",
        "i.csv:4: index = 0 is too small; allowed: a whole number from 1 to 4294967295",
        "i.csv:4: speed = x is no number; allowed: a whole number from 0 to 1000000000000000",
        "i.csv:5: has 2 cells; allowed: 9, as the header has",
        "i.csv:6: address is missing; allowed: an address in each row",
        "i.csv:7: index is missing; allowed: the interface's ifIndex",
        "i.csv:8: index = 9 says nothing; allowed: a name, a description, a speed",
    ];
    assert_eq!(faults, expected);
    assert!(csv_fault("").contains("i.csv: has no header"));
    assert!(csv_fault("name\nr1\n").contains("i.csv:1: address is missing"));
    assert!(csv_fault("address,adress\n").contains("i.csv:1: adress is no column; allowed: address, port"));
    assert!(csv_fault("address,label.\n").contains("label. is no column"));
    assert!(csv_fault("address,Address\n").contains("is there twice"));
    let labels: String = (0..33).map(|at| format!(",label.l{at}")).collect();
    assert!(csv_fault(&format!("address{labels}\n")).contains("has 33 columns; allowed: 32 labels"));
}
