//! Configs that are right, and every way in which they are not.

use super::options::{OPTIONS, markdown};
use super::*;
use std::collections::BTreeSet;

const TLS: &str = "[tls]\nca = 'ca.pem'\ncert = 'edge.pem'\nkey = 'edge.key'\n";
const PROXY: &str = "[listen]\nudp = ['127.0.0.1:2055']\n[uplink]\nendpoint = 'https://localhost:4440'\n";

struct Written {
    folder: tempfile::TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Written {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f.toml"), text).unwrap();
        Self { folder, variables: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("f.toml")
    }

    fn proxy(&self) -> Result<Proxy, Faults> {
        read(Role::Proxy, &self.file(), &self.variables, super::proxy::build)
    }

    fn collector(&self) -> Result<Collector, Faults> {
        read(Role::Collector, &self.file(), &self.variables, super::collector::build)
    }

    /// The faults, without the folder's name.
    fn faults(&self, role: Role) -> Vec<String> {
        let faults = match role {
            Role::Proxy => self.proxy().expect_err("a fault"),
            Role::Collector => self.collector().expect_err("a fault"),
        };
        let folder = format!("{}/", self.folder.path().display());
        faults.0.iter().map(|fault| fault.to_string().replace(&folder, "")).collect()
    }
}

fn proxy_with(more: &str) -> Written {
    Written::new(&format!("{PROXY}{TLS}{more}"))
}

fn collector_with(more: &str) -> Written {
    Written::new(&format!("{more}\n{TLS}"))
}

/// The only fault of a proxy's config with `more` in it.
fn only_fault(more: &str) -> String {
    let mut faults = proxy_with(more).faults(Role::Proxy);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults.remove(0)
}

#[test]
fn the_least_proxy_has_the_documented_defaults() {
    let written = proxy_with("");
    let proxy = written.proxy().unwrap();
    assert_eq!(proxy.listen.udp, ["127.0.0.1:2055".parse().unwrap()]);
    assert_eq!(proxy.listen.raw, []);
    assert_eq!(proxy.listen.shards, std::thread::available_parallelism().unwrap().get());
    assert_eq!(proxy.listen.receive_buffer, 4 << 20);
    assert!(!proxy.listen.obey_udp_withdrawals);
    assert_eq!((&proxy.listen.allow, proxy.limit), (&None, Limit::default()));
    assert_eq!(proxy.uplink.endpoints, ["https://localhost:4440"]);
    assert_eq!(proxy.uplink.max_rate, None);
    assert_eq!(proxy.spool.dir, written.folder.path().join("spool"));
    assert!(proxy.spool.max_bytes > 0 && proxy.spool.max_bytes <= 8 << 30);
    assert_eq!(proxy.spool.commit_interval, Duration::from_millis(10));
    assert_eq!(proxy.enrich, Enrich { netlink: true, ..Enrich::default() });
    assert_eq!(proxy.batch, Batch::default());
    assert_eq!(proxy.batch.max_records, 8_192);
    assert_eq!(proxy.batch.max_delay, Duration::from_millis(500));
    assert_eq!(proxy.admin.listen.to_string(), "127.0.0.1:9441");
    assert_eq!(proxy.shutdown.deadline, Duration::from_secs(10));
    assert_eq!(proxy.log.filter, "info");
}

#[test]
fn the_least_collector_has_the_documented_defaults() {
    let written = collector_with("[sink.jsonl]\npath = 'out/flows.jsonl'");
    let collector = written.collector().unwrap();
    assert_eq!(collector.listen.to_string(), "127.0.0.1:4440");
    assert_eq!(collector.admin.listen.to_string(), "127.0.0.1:9442");
    assert_eq!(collector.state_dir, written.folder.path().join("collector-state"));
    let jsonl = collector.sinks.jsonl.unwrap();
    assert_eq!(jsonl.path, written.folder.path().join("out/flows.jsonl"));
    assert_eq!((jsonl.max_bytes, jsonl.max_age), (1 << 30, Duration::from_secs(3_600)));
    assert!(collector.sinks.udp.is_none() && !collector.sinks.null);
}

#[test]
fn everything_can_be_set() {
    let text = "
        [listen]
        udp = ['0.0.0.0:0', '[::]:0', '127.0.0.1:0']
        raw = '127.0.0.1:9995'
        shards = 3
        receive_buffer = '16MiB'
        obey_udp_withdrawals = true
        allow = ['10.0.0.0/8', '2001:db8::/32', '192.0.2.7']
        [decode]
        sampling = ['10.0.0.0/8=1000', '192.0.2.7=1']
        [limit]
        datagrams = 20000
        bytes = '20MB'
        [enrich]
        static = 'interfaces.toml'
        netlink = false
        asn = '/var/lib/GeoLite2-ASN.mmdb'
        country = 'country.mmdb'
        [uplink]
        endpoint = ['https://a.example:4440', 'https://[2001:db8::1]:443/']
        max_rate = '10MiB'
        [tls]
        ca = '/etc/ca.pem'
        cert = 'edge.pem'
        key = 'edge.key'
        [spool]
        dir = '/var/spool/flow'
        max_bytes = '500MB'
        commit_interval = '1s'
        [batch]
        max_records = 65536
        max_bytes = 1048576
        max_delay = '2m'
        [admin]
        listen = '0.0.0.0:0'
        allow_remote = true
        [shutdown]
        deadline = '0s'
        [log]
        filter = 'warn,flowproxy::uplink=debug'
    ";
    let written = Written::new(text);
    let proxy = written.proxy().unwrap();
    let folder = written.folder.path();
    assert_eq!(proxy.enrich.static_file, Some(folder.join("interfaces.toml")));
    assert!(!proxy.enrich.netlink);
    assert_eq!(proxy.enrich.asn, Some("/var/lib/GeoLite2-ASN.mmdb".into()));
    assert_eq!(proxy.enrich.country, Some(folder.join("country.mmdb")));
    assert_eq!(proxy.listen.udp.len(), 3);
    assert_eq!(proxy.listen.raw.len(), 1);
    assert_eq!((proxy.listen.shards, proxy.listen.receive_buffer), (3, 16 << 20));
    let allow: Vec<_> = proxy.listen.allow.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(allow, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);
    let rates: Vec<_> = proxy.decode.sampling.iter().map(|(of, rate)| (of.to_string(), *rate)).collect();
    assert_eq!(rates, [("10.0.0.0/8".to_owned(), 1_000), ("192.0.2.7/32".to_owned(), 1)]);
    assert_eq!(proxy.limit, Limit { datagrams: Some(20_000), bytes: Some(20_000_000) });
    assert_eq!(proxy.uplink.endpoints.len(), 2);
    assert_eq!(proxy.uplink.max_rate, Some(10 << 20));
    assert_eq!(proxy.tls.ca, Path::new("/etc/ca.pem"));
    assert_eq!((proxy.spool.max_bytes, proxy.spool.dir), (500_000_000, "/var/spool/flow".into()));
    assert_eq!((proxy.batch.max_bytes, proxy.batch.max_delay), (1 << 20, Duration::from_secs(120)));
    assert_eq!(proxy.shutdown.deadline, Duration::ZERO);
}

#[test]
fn several_sinks_stand_side_by_side() {
    let collector =
        collector_with("[sink.null]\n[sink.udp]\nto = ['127.0.0.1:2055', '[::1]:2055']").collector();
    let sinks = collector.unwrap().sinks;
    assert!(sinks.null && sinks.jsonl.is_none());
    assert_eq!(sinks.udp.unwrap().to.len(), 2);
}

#[test]
fn the_environment_lies_over_the_file() {
    let written = proxy_with("[batch]\nmax_records = 7\nmax_bytes = 'nonsense'")
        .with("FLOWPROXY__BATCH__MAX_RECORDS", "12")
        .with("FLOWPROXY__BATCH__MAX_BYTES", "2MiB")
        .with("FLOWPROXY__LISTEN__UDP", "127.0.0.1:1, [::1]:2")
        .with("FLOWPROXY__LISTEN__OBEY_UDP_WITHDRAWALS", "true")
        .with("FLOWPROXY__SPOOL__DIR", "elsewhere")
        .with("FLOWPROXY_OTHER", "x")
        .with("PATH", "x");
    let proxy = written.proxy().unwrap();
    assert_eq!((proxy.batch.max_records, proxy.batch.max_bytes), (12, 2 << 20));
    assert_eq!(proxy.listen.udp.len(), 2);
    assert!(proxy.listen.obey_udp_withdrawals);
    assert_eq!(proxy.spool.dir, written.folder.path().join("elsewhere"));
}

fn two_sinks() -> Written {
    collector_with("[sink.jsonl]\npath = 'x'\n[sink.udp]\nto = '127.0.0.1:1'")
}

/// The variable of an option and a value that is not its default.
fn variable(row: &options::Row) -> (String, &'static str) {
    let value = match row.form {
        options::Form::Address => "127.0.0.1:0",
        options::Form::Addresses { .. } => "127.0.0.1:7001,127.0.0.1:7002",
        options::Form::Number { .. } => "9",
        options::Form::Size { .. } if row.key == "batch.max_bytes" => "1MiB",
        options::Form::Size { .. } => "256MiB",
        options::Form::Rate { .. } => "1MiB/s",
        options::Form::Span { .. } => "2s",
        options::Form::Flag if row.default == options::Absent::Is("true") => "false",
        options::Form::Flag | options::Form::Section => "true",
        options::Form::Path => "somewhere",
        options::Form::Endpoints => "https://a:1,https://b:2",
        options::Form::Names => "edge1,edge2",
        options::Form::NetworkRates => "10.0.0.0/8=1000,2001:db8::/32=512",
        options::Form::Networks => "10.0.0.0/8,2001:db8::/32",
        options::Form::Filter => "debug",
        options::Form::Word(_) | options::Form::Text => "text",
    };
    (format!("FLOWPROXY__{}", row.key.to_uppercase().replace('.', "__")), value)
}

#[test]
fn every_option_can_be_set_by_a_variable() {
    for row in OPTIONS {
        let (name, value) = variable(row);
        let faults = match row.role.unwrap_or(Role::Proxy) {
            Role::Proxy => proxy_with("").with(&name, value).proxy().err(),
            Role::Collector => two_sinks().with(&name, value).collector().err(),
        };
        assert_eq!(faults, None, "{name}");
    }
}

/// Rows of `role` whose value is kept; allow_remote is a check and no value.
fn kept(role: Role) -> impl Iterator<Item = &'static options::Row> {
    OPTIONS.iter().filter(move |row| row.belongs_to(role) && row.key != "admin.allow_remote")
}

#[test]
fn a_change_of_the_proxys_is_named_by_its_key() {
    for row in kept(Role::Proxy) {
        let (name, value) = variable(row);
        let mut written = proxy_with("");
        let before = written.proxy().unwrap();
        written = written.with(&name, value);
        let after = written.proxy().unwrap();
        assert_eq!(before.differences(&after), [row.key]);
        assert_eq!(before.needing_restart(&after).is_empty(), row.live, "{}", row.key);
        assert!(after.differences(&after).is_empty());
    }
}

#[test]
fn a_change_of_the_collectors_is_named_by_its_key() {
    for row in kept(Role::Collector) {
        let (name, value) = variable(row);
        let mut written = two_sinks();
        let before = written.collector().unwrap();
        written = written.with(&name, value);
        let after = written.collector().unwrap();
        assert_eq!(before.differences(&after), [row.key]);
        assert_eq!(before.needing_restart(&after).is_empty(), row.live, "{}", row.key);
    }
}

#[test]
fn a_variable_that_sets_nothing_is_a_fault() {
    let faults = proxy_with("")
        .with("FLOWPROXY__BATCH__MAX_RECORD", "12")
        .with("FLOWPROXY__BATCH", "12")
        .with("FLOWPROXY__SINK__NULL", "true")
        .faults(Role::Proxy);
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[1].contains("FLOWPROXY__BATCH__MAX_RECORD: batch.max_record = \"12\" does not exist"));
    assert!(faults[1].contains("did you mean batch.max_records?"), "{}", faults[1]);
    assert!(faults[2].contains("belongs to the config of a collector"), "{}", faults[2]);
    for name in ["FLOWPROXY__batch__max_records", "FLOWPROXY__A[9]", "FLOWPROXY____X", "FLOWPROXY__"] {
        let faults = proxy_with("").with(name, "1").faults(Role::Proxy);
        assert!(faults[0].contains("names no option"), "{faults:?}");
    }
    let both = proxy_with("batch.max_records = 0\n").with("FLOWPROXY__batch__x", "1").faults(Role::Proxy);
    assert!(both.len() == 2, "it hides no other fault: {both:?}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt;
    let mut written = proxy_with("");
    written.variables.push(("FLOWPROXY__SPOOL__DIR".into(), OsString::from_vec(vec![0xff])));
    assert!(written.faults(Role::Proxy)[0].contains("is not UTF-8"));
}

#[test]
fn a_section_may_be_empty() {
    let config = proxy_with("[batch]\n# max_records = 5\n[log]").proxy().unwrap();
    assert_eq!(config.batch, super::Batch::default());
}

#[test]
fn a_key_that_does_not_exist_is_a_fault_with_its_line() {
    let fault = only_fault("[batch]\nmax_record = 5");
    assert_eq!(
        fault,
        "f.toml:10: batch.max_record = 5 does not exist; did you mean batch.max_records?; \
         allowed: batch.max_records, batch.max_bytes, batch.max_delay"
    );
    assert!(only_fault("[nothing]").contains("f.toml:9: nothing = {  } does not exist; allowed: listen.udp"));
    assert!(only_fault("[spool]\nmax_records = 5").contains("did you mean batch.max_records?"));
    assert!(only_fault("[[batch]]\nmax_records = 5").contains("does not exist"));
}

#[test]
fn numbers_are_not_rounded_and_text_is_no_number() {
    assert!(
        only_fault("[batch]\nmax_records = 1.7")
            .contains("= 1.7 is a number with a fraction; allowed: a whole")
    );
    assert!(only_fault("[batch]\nmax_records = '12'").contains("= \"12\" is text"));
    assert!(only_fault("[batch]\nmax_records = true").contains("= true is true/false"));
    assert!(only_fault("[batch]\nmax_records = [1]").contains("= [1] is a list"));
    assert!(only_fault("[batch.max_records]\na = 1").contains("batch.max_records = { a } is a section"));
    assert!(only_fault("[batch]\nmax_records = -1").contains("is negative"));
    assert!(only_fault("[admin]\nallow_remote = 1").contains("is a number; allowed: true or false"));
}

#[test]
fn limits_are_kept() {
    assert!(
        only_fault("[batch]\nmax_records = 0")
            .contains("is too small; allowed: a whole number from 1 to 65536")
    );
    assert!(only_fault("[batch]\nmax_records = 65537").contains("is too large"));
    assert!(only_fault("[spool]\nmax_bytes = '1MiB'").contains("is too small; allowed: bytes from 8 MiB"));
    assert!(only_fault("[spool]\nmax_bytes = '99999999999999999999TiB'").contains("is too large"));
    assert!(only_fault("[spool]\ncommit_interval = '0ms'").contains("allowed: a whole number with a unit"));
}

#[test]
fn spans_of_time_have_a_unit() {
    assert!(only_fault("[batch]\nmax_delay = 500").contains("= 500 has no unit"));
    assert!(only_fault("[batch]\nmax_delay = '500'").contains("= \"500\" has no unit"));
    assert!(
        only_fault("[batch]\nmax_delay = '5 years'").contains("has a unit that does not exist here (years)")
    );
    assert!(only_fault("[batch]\nmax_delay = '0.5s'").contains("is not a whole number"));
    assert!(only_fault("[batch]\nmax_delay = '+5s'").contains("is not a whole number"));
    assert!(only_fault("[batch]\nmax_delay = ''").contains("is not a whole number"));
}

#[test]
fn sizes_know_their_units() {
    for (text, bytes) in [("'1 GiB'", 1 << 30), ("'1GB'", 1_000_000_000), ("209715200", 200 << 20)] {
        let proxy = proxy_with(&format!("[spool]\nmax_bytes = {text}")).proxy().unwrap();
        assert_eq!(proxy.spool.max_bytes, bytes);
    }
    for text in ["'1gb'", "'1.5GiB'", "'GiB'", "''", "'1GiB/s'", "'-1GiB'", "'1 GiB x'"] {
        only_fault(&format!("[spool]\nmax_bytes = {text}"));
    }
}

#[test]
fn addresses_are_checked() {
    let of = |udp: &str| {
        let text = format!("[listen]\nudp = {udp}\n[uplink]\nendpoint = 'https://a:1'\n{TLS}");
        Written::new(&text).faults(Role::Proxy).remove(0)
    };
    assert!(
        of("['127.0.0.1']").contains("is wrong: \"127.0.0.1\" has no port; allowed: a list of IP addresses")
    );
    assert!(of("['localhost:2055']").contains("is not an IP address with a port"));
    assert!(of("[2055]").contains("is wrong: 2055 is a number"));
    let all = of("['127.0.0.1', '127.0.0.1:2055', 'localhost:2055']");
    let both =
        "is wrong: \"127.0.0.1\" has no port, \"localhost:2055\" is not an IP address with a port; allowed";
    assert!(all.contains(both), "every wrong item at once: {all}");
    assert!(of("2055").contains("is a number"));
    assert!(of("['127.0.0.1:99999']").contains("is not an IP address with a port"));
}

#[test]
fn network_rates_are_checked() {
    let of = |list: &str| only_fault(&format!("[decode]\nsampling = {list}"));
    for (list, expected) in [
        ("['10.0.0.0/8']", "has no rate"),
        ("['10.0.0.0/8=']", "has a rate that is not a whole number"),
        ("['10.0.0.0/8=0']", "has a rate that is too small"),
        ("['10.0.0.0/8=4294967296']", "has a rate that is too large"),
        ("['10.0.0.1/8=5']", "did you mean 10.0.0.0/8?"),
        ("['10.0.0.0/8=5', '10.0.0.0/8=6']", "names 10.0.0.0/8 twice"),
        ("[]", "is empty; allowed: a list of networks or addresses, each with N"),
    ] {
        assert!(of(list).contains(expected), "{list}: {}", of(list));
    }
}

#[test]
fn networks_are_checked() {
    let of = |allow: &str| {
        let listen = format!("[listen]\nudp = '127.0.0.1:0'\nallow = {allow}\n");
        Written::new(&format!("{listen}[uplink]\nendpoint = 'https://a:1'\n{TLS}"))
            .faults(Role::Proxy)
            .remove(0)
    };
    assert!(of("[]").contains("is empty: nobody could send; allowed: a list of networks"));
    assert!(of("['10.0.0.0/33']").contains("is neither an IP address nor a network"));
    assert!(of("['edge1.example.net']").contains("is neither an IP address nor a network"));
    assert!(of("['10.1.2.3/8']").contains("did you mean 10.0.0.0/8?"));
    assert!(of("['::ffff:10.0.0.0/104']").contains("is IPv4 written as IPv6"));
}

#[test]
fn an_address_is_listened_on_once() {
    let of = |listen: &str| {
        let text = format!("[listen]\n{listen}\n[uplink]\nendpoint = 'https://a:1'\n{TLS}");
        Written::new(&text)
    };
    let faults = of("udp = ['127.0.0.1:5', '127.0.0.1:5']").faults(Role::Proxy);
    assert!(faults[0].contains("takes 127.0.0.1:5, which listen.udp takes already"), "{faults:?}");
    let faults = of("udp = ['127.0.0.1:5']\nraw = ['0.0.0.0:5']").faults(Role::Proxy);
    assert!(faults[0].starts_with("f.toml:3: listen.raw = [\"0.0.0.0:5\"] takes 0.0.0.0:5"), "{faults:?}");
    let faults = of("tcp = ['127.0.0.1:5', '0.0.0.0:5']").faults(Role::Proxy);
    assert!(faults[0].contains("takes 0.0.0.0:5, which listen.tcp takes already"), "{faults:?}");
    assert!(of("udp = ['127.0.0.1:5']\ntcp = ['127.0.0.1:5']").proxy().is_ok(), "UDP and TCP share no ports");
    assert!(of("udp = ['127.0.0.1:0', '127.0.0.1:0', '[::1]:5', '127.0.0.1:5']").proxy().is_ok());
    assert!(of("udp = ['0.0.0.0:5', '[::]:5']").proxy().is_ok());
}

#[test]
fn there_is_somewhere_to_listen_and_to_write() {
    let faults = Written::new(&format!("[uplink]\nendpoint = 'https://a:1'\n{TLS}")).faults(Role::Proxy);
    assert!(faults[0].contains("listen says nowhere to listen"), "{faults:?}");
    let tcp = format!("[listen]\ntcp = '127.0.0.1:4739'\n[uplink]\nendpoint = 'https://a:1'\n{TLS}");
    let proxy = Written::new(&tcp).proxy().unwrap();
    assert_eq!((proxy.listen.udp.len(), proxy.listen.tcp), (0, vec!["127.0.0.1:4739".parse().unwrap()]));
    let faults = collector_with("listen = '127.0.0.1:0'").faults(Role::Collector);
    assert!(faults[0].contains("sink says nowhere to write to"), "{faults:?}");
    let faults = collector_with("[sink.jsonl]").faults(Role::Collector);
    assert!(faults[0].contains("sink.jsonl"), "{faults:?}");
    let faults = collector_with("[sink.udp]\nto = []").faults(Role::Collector);
    assert!(faults[0].contains("sink.udp.to says nowhere to send to"), "{faults:?}");
    let faults = collector_with("[sink.udp]\nto = ['127.0.0.1:0']").faults(Role::Collector);
    assert!(faults[0].contains("has port 0; allowed"), "{faults:?}");
    let faults = collector_with("[sink.null]\nfast = true").faults(Role::Collector);
    assert!(faults[0].contains("sink.null = { fast } has options (fast)"), "{faults:?}");
}

#[test]
fn endpoints_are_https_with_a_port() {
    let of = |endpoint: &str| {
        let text = format!("[listen]\nudp = ['127.0.0.1:0']\n[uplink]\nendpoint = {endpoint}\n{TLS}");
        Written::new(&text).faults(Role::Proxy).remove(0)
    };
    assert!(of("'http://a:1'").contains("does not begin with https://"));
    assert!(of("'a:1'").contains("does not begin with https://"));
    assert!(of("'https://a'").contains("has no port"));
    assert!(of("'https://a:0'").contains("has port 0"));
    assert!(of("'https://a:1/path'").contains("has more than a host and a port"));
    assert!(of("'https://me:secret@a:1'").contains("has more than a host and a port"));
    assert!(of("[]").contains("is empty"));
    assert!(of("['https://a:1', 'https://a:1']").contains("twice"));
    assert!(of("'https://a b:1'").contains("is not a URL"));
}

#[test]
fn state_is_not_shown_to_strangers_by_accident() {
    let fault = only_fault("[admin]\nlisten = '0.0.0.0:9441'");
    assert!(fault.contains("is not loopback") && fault.contains("admin.allow_remote = true"), "{fault}");
    let faults = collector_with("listen = '127.0.0.1:9442'\n[sink.null]").faults(Role::Collector);
    assert!(faults[0].contains("admin.listen takes 127.0.0.1:9442, where proxies connect"), "{faults:?}");
}

#[test]
fn filters_are_checked() {
    assert!(only_fault("[log]\nfilter = 'loud=very'").contains("is not a log filter"));
}

#[test]
fn all_faults_come_at_once_and_in_order() {
    let text =
        "[listen]\nudp = ['here']\nshards = 0\n[uplink]\nendpiont = 'http://a:1'\n[batch]\nmax_delay = 5\n";
    let faults = Written::new(text).with("FLOWPROXY__SPOOL__MAX_BYTES", "much").faults(Role::Proxy);
    let places: Vec<_> =
        faults.iter().map(|fault| fault.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "f.toml: uplink.endpoint",
            "f.toml: tls.ca",
            "f.toml: tls.cert",
            "f.toml: tls.key",
            "f.toml:2: listen.udp",
            "f.toml:3: listen.shards",
            "f.toml:5: uplink.endpiont",
            "f.toml:7: batch.max_delay",
            "environment variable",
        ]
    );
    assert!(
        faults[8].contains("FLOWPROXY__SPOOL__MAX_BYTES: spool.max_bytes = \"much\" is not a whole number")
    );
}

#[test]
fn broken_toml_is_told_with_its_lines() {
    let faults = Written::new("a = \nb = ]\n").faults(Role::Proxy);
    assert!(faults[0].starts_with("f.toml:1: is not TOML: "), "{faults:?}");
    assert!(faults[1].starts_with("f.toml:2: is not TOML: "), "{faults:?}");
    let faults = Written::new("\"a[99999999999]\" = 1\n").faults(Role::Proxy);
    assert!(faults[0].starts_with("f.toml:1: has a key that cannot be one of ours"), "{faults:?}");
    let faults = Written::new("a = 99999999999999999999\n").faults(Role::Proxy);
    assert!(faults[0].starts_with("f.toml: cannot be read: "), "{faults:?}");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let faults = read(Role::Proxy, Path::new("/nonexistent/f.toml"), &[], super::proxy::build).unwrap_err();
    assert!(faults.to_string().starts_with("/nonexistent/f.toml: cannot be read: "), "{faults}");
}

#[test]
fn roles_are_told_apart_by_their_keys() {
    let of = |text: &str| {
        let written = Written::new(text);
        role(&layers::outline(&written.file(), &written.variables))
    };
    assert_eq!(of(PROXY), Some(Role::Proxy));
    assert_eq!(of("listen = '127.0.0.1:4440'"), Some(Role::Collector));
    assert_eq!(of("[sink.null]"), Some(Role::Collector));
    assert_eq!(of("[listen]\nudp = []"), Some(Role::Proxy));
    assert_eq!(of(""), None);
    let by_variable = Written::new("").with("FLOWPROXY__SINK__NULL", "true");
    assert_eq!(role(&layers::outline(&by_variable.file(), &by_variable.variables)), Some(Role::Collector));
}

#[test]
fn every_row_of_the_table_is_read_and_every_read_key_is_a_row() {
    for role in [Role::Proxy, Role::Collector] {
        let sinks = ["sink.jsonl.path", "sink.udp.to"].map(|key| {
            let given = layers::Given::Plain("127.0.0.1:1".into());
            (key.to_owned(), layers::Placed { given, place: Place::File(PathBuf::new()) })
        });
        let given = if role == Role::Collector { sinks.into() } else { Default::default() };
        let mut fields = Fields::new(role, Path::new("f.toml"), given, vec![]);
        match role {
            Role::Proxy => drop(super::proxy::build(&mut fields)),
            Role::Collector => drop(super::collector::build(&mut fields)),
        }
        let rows: BTreeSet<_> =
            OPTIONS.iter().filter(|row| row.belongs_to(role)).map(|row| row.key.into()).collect();
        assert_eq!(fields.asked, rows);
    }
}

#[test]
fn no_key_stands_twice_in_the_table() {
    for role in [Role::Proxy, Role::Collector] {
        let rows: Vec<_> = options::rows().filter(|row| row.belongs_to(role)).map(|row| row.key).collect();
        assert_eq!(rows.len(), rows.iter().collect::<BTreeSet<_>>().len());
        assert_eq!(markdown(role).lines().count(), rows.len() + 2);
    }
}

const COMMUNITY: &str = "version = '2c'\nnetworks = ['127.0.0.1/32']\ncommunity_file = 'community'\n";
const USER: &str = "version = '3'\nnetworks = ['10.0.0.0/8', '::1']\nuser = 'flow'\nauth = 'sha256'\n\
                    auth_file = 'auth'\nprivacy = 'aes128'\nprivacy_env = 'PRIVACY'\n";

/// A proxy's config with these sections of SNMP, and files with secrets beside it.
fn asking(sections: &[&str]) -> Written {
    let sections: String = sections.iter().map(|section| format!("[[enrich.snmp]]\n{section}")).collect();
    let written = proxy_with(&sections).with("PRIVACY", "password of privacy\r\n").with("SHORT", "seven77");
    for (name, secret) in [("community", "public\n"), ("auth", "password"), ("empty", "\n")] {
        std::fs::write(written.folder.path().join(name), secret).unwrap();
    }
    written
}

#[test]
fn devices_are_asked_with_secrets_from_files_and_variables() {
    let snmp = asking(&[COMMUNITY, &format!("{USER}port = 1161\ninterval = '30s'\ntry = true\n")]);
    let snmp = snmp.proxy().unwrap().enrich.snmp;
    let [community, user] = &snmp[..] else { panic!("{snmp:?}") };
    assert!(matches!(&community.access, Access::Community(secret) if secret.reveal() == b"public"));
    assert_eq!((community.port, community.retries, community.is_tried), (161, 2, false));
    assert_eq!((community.interval, community.timeout), (Duration::from_secs(300), Duration::from_secs(2)));
    assert_eq!(user.networks, ["10.0.0.0/8".parse().unwrap(), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]).into()]);
    assert_eq!((user.port, user.interval, user.is_tried), (1161, Duration::from_secs(30), true));
    let Access::User { name, authentication, privacy: Some((privacy, secret)) } = &user.access else {
        panic!("{user:?}");
    };
    assert_eq!((name.as_str(), authentication.digest, *privacy), ("flow", Digest::Sha256, Privacy::Aes128));
    assert_eq!(
        (authentication.password.reveal(), secret.reveal()),
        (&b"password"[..], &b"password of privacy"[..])
    );
    let shown = format!("{snmp:?}");
    assert!(
        !shown.contains("public") && !shown.contains("password of") && !shown.contains("\"password\""),
        "{shown}"
    );
}

#[test]
fn every_fault_of_credentials_is_told() {
    let short = USER.replace("auth_file = 'auth'", "auth_env = 'SHORT'");
    let cases = [
        ("version = '2c'\nnetworks = ['::1']\n", "f.toml:10: enrich.snmp[0].community_file is missing"),
        (&*COMMUNITY.replace("'community'", "'nowhere'"), "nowhere\" cannot be read: No such file"),
        (&*COMMUNITY.replace("'community'", "'empty'"), "holds no secret: it is empty"),
        (
            &*COMMUNITY.replace("community_file = 'community'", "community_env = 'NONE'"),
            "\"NONE\" is not set",
        ),
        (&*format!("{COMMUNITY}community_env = 'PRIVACY'\n"), "stands beside enrich.snmp[0].community_file"),
        (&*format!("{COMMUNITY}user = 'x'\n"), "enrich.snmp[0].user = \"x\" belongs to version \"3\""),
        (&*format!("{COMMUNITY}port = 0\n"), "enrich.snmp[0].port = 0 is too small"),
        (&*COMMUNITY.replace("'2c'", "'1'"), "\"1\" is none of the words for it; allowed: \"2c\", \"3\""),
        (&*USER.replace("sha256", "md5"), "enrich.snmp[0].auth = \"md5\" is broken, and not used here"),
        (&*USER.replace("user = 'flow'", ""), "enrich.snmp[0].user is missing"),
        (&*short, "holds a password shorter than 8 bytes"),
        (&*USER.replace("privacy = 'aes128'", ""), "enrich.snmp[0].privacy is missing"),
        (&*format!("{COMMUNITY}communities = 'x'\n"), "enrich.snmp[0].communities does not exist"),
    ];
    for (section, told) in cases {
        let faults = asking(&[section]).faults(Role::Proxy);
        assert!(faults.len() == 1 && faults[0].contains(told), "{section}{faults:#?}");
    }
    let faults = asking(&[&COMMUNITY.replace("'community'", "'empty'"), &short]).faults(Role::Proxy);
    assert_eq!(faults.len(), 2, "all of them at once: {faults:#?}");
    let faults = asking(&["community = 'hunter22'\n"]).faults(Role::Proxy);
    assert!(faults.iter().all(|fault| !fault.contains("hunter22")), "{faults:#?}");
    let faults = proxy_with("[enrich]\nsnmp = 'x'\n").faults(Role::Proxy);
    assert!(faults[0].contains("is no list of sections; allowed: [[enrich.snmp]]"), "{faults:#?}");
}

#[test]
fn every_option_of_a_section_is_read_and_its_change_is_named() {
    let written = asking(&[COMMUNITY, USER]);
    let is_list = |key: &str| options::is_list_of_sections(Role::Proxy, key);
    let is_option = |key: &str| options::find(Role::Proxy, key).is_some();
    let (given, _) = layers::read(&written.file(), &[], is_option, is_list).unwrap();
    let mut fields = Fields::new(Role::Proxy, &written.file(), given, vec![]);
    let _ = super::proxy::build(&mut fields);
    for row in options::rows().filter(|row| row.key.contains("[]")) {
        assert!(row.live && fields.asked.contains(row.key), "{}", row.key);
    }
    let before = written.proxy().unwrap();
    let mut after = before.clone();
    after.enrich.snmp.pop();
    assert_eq!(before.differences(&after), ["enrich.snmp[].networks"]);
    assert!(before.needing_restart(&after).is_empty());
}
