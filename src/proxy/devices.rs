//! How asking a sender's device by SNMP goes, beside what else is told of the sender.

use crate::enrich::snmp::{Board, Row};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Puts `snmp` into each sender of these exporters' rows whose device is asked.
pub(super) fn beside(mut exporters: Value, board: &Board) -> Value {
    let rows = exporters.as_array_mut().into_iter().flatten();
    for sender in rows.filter_map(|row| row.get_mut("senders")?.as_array_mut()).flatten() {
        let device = sender.get("device").and_then(Value::as_str).and_then(|it| it.parse::<IpAddr>().ok());
        let told = device.and_then(|device| board.row(device)).map(|row| json_of(&row));
        if let (Some(told), Some(sender)) = (told, sender.as_object_mut()) {
            sender.insert("snmp".to_owned(), told);
        }
    }
    exporters
}

fn json_of(row: &Row) -> Value {
    json!({
        "name": row.name,
        "description": row.description,
        "interfaces": row.interfaces,
        "up": row.up,
        "read": row.read,
        "by": row.by,
        "failed": row.failed,
        "failed_at": row.failed_at,
        "failures": row.failures,
    })
}
