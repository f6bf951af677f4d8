//! Lists inside records (RFC 6313) as lines of text: a line each for its list, its template and its records' fields.
//!
//! ```text
//! allOf, template 300
//! - cert:initialTCPFlags  2
//!   tcpSequenceNumber     7
//! - ...
//! ```

use super::table::{escaped, plain, width};
use crate::flow::Field;
use crate::flow::json::{self, Format};
use serde_json::{Map, Value};

/// The lines of a list as it is in the JSON lines. What is no list there, since it could not be read, is one line.
pub(super) fn lines(list: &Value) -> Vec<String> {
    let list = match list {
        Value::Array(lists) => return lists.iter().flat_map(lines).collect(),
        Value::Object(list) => list,
        other => return vec![plain(other)],
    };
    let semantic = text_at(list, "semantic").unwrap_or("list");
    let mut lines = vec![semantic.to_owned()];
    if let Some(parts) = list.get("lists").and_then(Value::as_array) {
        for part in parts.iter().filter_map(Value::as_object) {
            lines.push(template(part));
            lines.extend(records(part));
        }
    } else if let Some(key) = text_at(list, "field") {
        lines = vec![format!("{semantic} of {}", title(key))];
        lines.extend(values(key, list));
        // Values that are no lists are one line.
        if let [head, values] = &lines[..] {
            lines = vec![format!("{head}: {values}")];
        }
    } else {
        lines = vec![format!("{semantic}, {}", template(list))];
        lines.extend(records(list));
    }
    lines
}

/// The template of a part, and what could not be read by it.
fn template(part: &Map<String, Value>) -> String {
    let template = part.get("template").map_or("?".to_owned(), Value::to_string);
    match text_at(part, "octets") {
        Some(octets) => format!("template {template}, not decoded: {octets}"),
        None => format!("template {template}"),
    }
}

fn values(key: &str, list: &Map<String, Value>) -> Vec<String> {
    let values = list.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if values.iter().any(Value::is_object) {
        return values.iter().flat_map(lines).map(|line| format!("  {line}")).collect();
    }
    vec![values.iter().map(|value| leaf(key, value)).collect::<Vec<_>>().join(", ")]
}

fn records(part: &Map<String, Value>) -> Vec<String> {
    let records = part.get("records").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    records.iter().filter_map(Value::as_object).flat_map(record).collect()
}

fn record(record: &Map<String, Value>) -> Vec<String> {
    let rows: Vec<_> = record.iter().map(|(key, value)| (title(key), key, value)).collect();
    let width = width(rows.iter().map(|(name, ..)| name.as_str()));
    let mut out = Vec::new();
    for (name, key, value) in &rows {
        let mark = if out.is_empty() { '-' } else { ' ' };
        if value.is_object() {
            let mut nested = lines(value).into_iter();
            let first = nested.next().unwrap_or_default();
            out.push(format!("{mark} {name:<width$}  {first}"));
            out.extend(nested.map(|line| format!("      {line}")));
        } else {
            out.push(format!("{mark} {name:<width$}  {}", leaf(key, value)));
        }
    }
    out
}

fn text_at<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// What a key is called for people.
fn title(key: &str) -> String {
    of_vendor(key).map_or_else(|| escaped(key), Field::title)
}

/// A value; of a vendor's element, of which the JSON lines have the bytes, by the type that is known.
fn leaf(key: &str, value: &Value) -> String {
    let known = of_vendor(key).and_then(Field::element_type);
    let bytes = value.as_str().and_then(bytes);
    let Some((known, bytes)) = known.zip(bytes) else { return plain(value) };
    let mut out = Vec::new();
    json::write_value(&mut out, Format::from(known), &bytes);
    serde_json::from_slice(&out).map_or_else(|_| plain(value), |value| plain(&value))
}

/// The field of a key `e<PEN>.<ID>`.
fn of_vendor(key: &str) -> Option<Field> {
    let (enterprise, element) = key.strip_prefix('e')?.split_once('.')?;
    Some(Field { enterprise: enterprise.parse().ok()?, element: element.parse().ok()?, width: 0 })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(high << 4 | low),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_in_lists() {
        let list = json!({"semantic": "allOf", "lists": [
            {"template": 300, "records": [{"sourceMacAddress": "00:01:02:03:04:05"}]},
            {"template": 301, "records": [{"protocolIdentifier": 6, "subTemplateList":
                {"semantic": "noneOf", "template": 302, "records": [{"sourceTransportPort": 53}]}}]},
            {"template": 303, "octets": "0050"},
        ]});
        let expected = [
            "allOf",
            "template 300",
            "- sourceMacAddress  00:01:02:03:04:05",
            "template 301",
            "- protocolIdentifier  6",
            "  subTemplateList     noneOf, template 302",
            "      - sourceTransportPort  53",
            "template 303, not decoded: 0050",
        ];
        assert_eq!(lines(&list), expected);
    }

    #[test]
    fn values_of_any_kind() {
        let of =
            |field: &str, values: Value| json!({"semantic": "ordered", "field": field, "values": values});
        assert_eq!(lines(&of("e6871.14", json!(["02", "12"]))), ["ordered of cert:initialTCPFlags: 2, 18"]);
        assert_eq!(lines(&of("e6871.14", json!(["0x", "2"]))), ["ordered of cert:initialTCPFlags: 0x, 2"]);
        assert_eq!(lines(&of("interfaceName", json!(["a\u{1b}"]))), ["ordered of interfaceName: a\\u{1b}"]);
        let nested = of("basicList", json!([of("ie77", json!([1])), of("ie78", json!([]))]));
        let expected = ["ordered of basicList", "  ordered of ie77: 1", "  ordered of ie78: "];
        assert_eq!(lines(&nested), expected);
        assert_eq!(lines(&json!("0102")), ["0102"]);
    }
}
