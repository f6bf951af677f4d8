//! The README's tables of metrics are those of the code.

use flowproxy::{collector, enrich, ingest, keeper, metrics, proxy, spool, uplink};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;

/// The registry's metrics as rows of a Markdown table.
fn table(registry: &Registry) -> String {
    let text = metrics::text(registry);
    let mut types = BTreeMap::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => rows.push((name, help.trim_end_matches('.'))),
            ["#", "TYPE", name, kind] => drop(types.insert(name, kind)),
            _ => {}
        }
    }
    let mut table = String::from("| metric | type | meaning |\n|---|---|---|\n");
    for (name, help) in rows {
        let kind = types.get(name).unwrap_or(&"untyped");
        let suffix = if *kind == "counter" { "_total" } else { "" };
        table.push_str(&format!("| `{name}{suffix}` | {kind} | {help} |\n"));
    }
    table
}

#[test]
fn the_readme_has_every_metric() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut near_end = metrics::registry();
    metrics::Ingest::new().register(&mut near_end);
    ingest::tcp::Metrics::new().register(&mut near_end);
    spool::Metrics::default().register(&mut near_end);
    keeper::Metrics::default().register(&mut near_end);
    uplink::Metrics::default().register(&mut near_end);
    enrich::Metrics::default().register(&mut near_end);
    proxy::SharingMetrics::default().register(&mut near_end);
    enrich::netlink::Metrics::new().register(&mut near_end);
    enrich::snmp::Metrics::default().register(&mut near_end);
    enrich::lookup::Metrics::new().register(&mut near_end);
    let mut far_end = metrics::registry();
    collector::Metrics::new().register(&mut far_end);
    for (role, registry) in [("proxy", near_end), ("collector", far_end)] {
        let table = table(&registry);
        assert!(readme.contains(&table), "README.md must have, for the {role}:\n\n{table}");
    }
}
