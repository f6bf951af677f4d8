//! Values as JSON, written straight into bytes.
//!
//! | type | bytes | JSON |
//! |---|---|---|
//! | unsigned, signed | 1 to 16 | number |
//! | unsigned | more, the first of them 0 | number |
//! | float | 4, 8 | number; null if it is none |
//! | boolean | 1 | true (1), false (2) |
//! | MAC address | 6 | aa:bb:cc:dd:ee:ff |
//! | IPv4, IPv6 address | 4, 16 | text |
//! | string | any | text; bytes that are no UTF-8 become U+FFFD; zero bytes at the end are left out |
//! | dateTimeSeconds, dateTimeMilliseconds | 1 to 8 | number, milliseconds since 1970 |
//! | dateTimeMicroseconds, dateTimeNanoseconds | 8 | RFC 3339 |
//! | octets, and whatever has no element | any | hexadecimal digits |
//! | lists | any | hexadecimal digits here; structure is given to them by `record::lists` |
//! | a type above, other than string | none | null |
//! | a type above | others | hexadecimal digits |

use super::element::Type;
use super::time;
use std::io::Write as _;
use std::net::Ipv6Addr;

/// How the bytes of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table above has them")]
pub enum Format {
    Unsigned,
    Signed,
    Float,
    Boolean,
    Mac,
    Ipv4,
    Ipv6,
    String,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    Octets,
}

impl From<Type> for Format {
    fn from(element_type: Type) -> Self {
        match element_type {
            Type::Unsigned8 | Type::Unsigned16 | Type::Unsigned32 | Type::Unsigned64 | Type::Unsigned256 => {
                Self::Unsigned
            }
            Type::Signed32 => Self::Signed,
            Type::Float32 | Type::Float64 => Self::Float,
            Type::Boolean => Self::Boolean,
            Type::MacAddress => Self::Mac,
            Type::String => Self::String,
            Type::DateTimeSeconds => Self::Seconds,
            Type::DateTimeMilliseconds => Self::Milliseconds,
            Type::DateTimeMicroseconds => Self::Microseconds,
            Type::DateTimeNanoseconds => Self::Nanoseconds,
            Type::Ipv4Address => Self::Ipv4,
            Type::Ipv6Address => Self::Ipv6,
            Type::OctetArray | Type::BasicList | Type::SubTemplateList | Type::SubTemplateMultiList => {
                Self::Octets
            }
        }
    }
}

/// An unsigned integer in network byte order; `None` if it takes more than 128 bits or there is no byte.
pub fn unsigned(bytes: &[u8]) -> Option<u128> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count().min(bytes.len().saturating_sub(16));
    let bytes = bytes.get(zeros..)?;
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    Some(bytes.iter().fold(0, |value, &byte| value << 8 | u128::from(byte)))
}

/// An unsigned integer in network byte order; `None` if it takes more than 64 bits or there is no byte.
pub fn unsigned_64(bytes: &[u8]) -> Option<u64> {
    if (1..=8).contains(&bytes.len()) {
        return Some(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    unsigned(bytes).and_then(|value| value.try_into().ok())
}

/// A two's-complement integer in network byte order; `None` if it is longer than 16 bytes or empty.
fn signed(bytes: &[u8]) -> Option<i128> {
    let &first = bytes.first().filter(|_| bytes.len() <= 16)?;
    let sign = if first & 0x80 == 0 { 0 } else { -1 };
    Some(bytes.iter().fold(sign, |value, &byte| value << 8 | i128::from(byte)))
}

/// Appends the value of a field.
pub fn write_value(out: &mut Vec<u8>, format: Format, bytes: &[u8]) {
    if write_fitting(out, format, bytes).is_some() {
        return;
    }
    if bytes.is_empty() && format != Format::Octets {
        out.extend_from_slice(b"null");
    } else {
        write_hex(out, bytes);
    }
}

/// Appends the value if its length fits its format.
fn write_fitting(out: &mut Vec<u8>, format: Format, bytes: &[u8]) -> Option<()> {
    match format {
        Format::Unsigned => match unsigned_64(bytes) {
            Some(value) => write_number(out, value),
            None => write_display(out, unsigned(bytes)?),
        },
        Format::Signed => write_display(out, signed(bytes)?),
        Format::Float => write_float(out, bytes)?,
        Format::Boolean => out.extend_from_slice(match bytes {
            [1] => b"true",
            [2] => b"false",
            _ => return None,
        }),
        Format::Mac => write_mac(out, bytes.try_into().ok()?),
        Format::Ipv4 => write_ipv4(out, bytes.try_into().ok()?),
        Format::Ipv6 => write_quoted(out, Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        Format::String => write_bytes_as_text(out, bytes),
        Format::Seconds => {
            let seconds = unsigned_64(bytes)?;
            match seconds.checked_mul(1000) {
                Some(milliseconds) => write_number(out, milliseconds),
                None => write_display(out, u128::from(seconds) * 1000),
            }
        }
        Format::Milliseconds => write_number(out, unsigned_64(bytes)?),
        Format::Microseconds => {
            let ntp = u64::from_be_bytes(bytes.try_into().ok()?);
            write_time(out, time::from_ntp_micros(ntp) * 1000, 6);
        }
        Format::Nanoseconds => {
            let ntp = u64::from_be_bytes(bytes.try_into().ok()?);
            write_time(out, time::from_ntp(ntp), 9);
        }
        Format::Octets => return None,
    }
    Some(())
}

/// Appends a number.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        start -= 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// Appends whatever shows itself as JSON does: long integers, finite floats.
pub fn write_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec never fails.
    let _ = write!(out, "{value}");
}

fn write_quoted(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    out.push(b'"');
    write_display(out, value);
    out.push(b'"');
}

/// Appends a float of 4 or 8 bytes.
fn write_float(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    // The shortest digits that give the same float differ between the two lengths.
    if let Ok(four) = bytes.try_into() {
        let value = f32::from_be_bytes(four);
        write_finite(out, value.is_finite(), value);
    } else {
        let value = f64::from_be_bytes(bytes.try_into().ok()?);
        write_finite(out, value.is_finite(), value);
    }
    Some(())
}

/// `Debug` writes an exponent where `Display` writes hundreds of digits.
fn write_finite(out: &mut Vec<u8>, is_finite: bool, value: impl std::fmt::Debug) {
    if is_finite {
        let _ = write!(out, "{value:?}");
    } else {
        out.extend_from_slice(b"null");
    }
}

fn write_time(out: &mut Vec<u8>, unix_ns: i128, digits: u32) {
    out.push(b'"');
    time::write_rfc3339(out, unix_ns, digits);
    out.push(b'"');
}

/// The address that most records have twice: not by way of `Display`.
fn write_ipv4(out: &mut Vec<u8>, bytes: [u8; 4]) {
    for (mark, byte) in b"\"...".iter().zip(bytes) {
        out.push(*mark);
        write_number(out, u64::from(byte));
    }
    out.push(b'"');
}

fn write_mac(out: &mut Vec<u8>, bytes: [u8; 6]) {
    for (mark, byte) in b"\":::::".iter().zip(bytes) {
        out.push(*mark);
        out.extend_from_slice(&hex(byte));
    }
    out.push(b'"');
}

/// Appends bytes as text of two hexadecimal digits each.
pub fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        out.extend_from_slice(&hex(byte));
    }
    out.push(b'"');
}

fn hex(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 })
}

fn write_bytes_as_text(out: &mut Vec<u8>, bytes: &[u8]) {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    write_text(out, &String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()));
}

/// Appends text with quotes, escaped as RFC 8259 section 7 says.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 | 0x7f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex(byte));
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(format: Format, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_value(&mut out, format, bytes);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        text
    }

    #[test]
    fn integers_of_any_width() {
        assert_eq!(json(Format::Unsigned, &[0]), "0");
        assert_eq!(json(Format::Unsigned, &[1, 0, 0]), "65536");
        assert_eq!(json(Format::Unsigned, &[255; 8]), u64::MAX.to_string());
        assert_eq!(json(Format::Unsigned, &[1, 0, 0, 0, 0, 0, 0, 0, 0]), (1_u128 << 64).to_string());
        assert_eq!(json(Format::Unsigned, &[255; 16]), u128::MAX.to_string());
        assert_eq!(json(Format::Unsigned, &[[0; 31].as_slice(), &[7]].concat()), "7");
        assert_eq!(json(Format::Unsigned, &[1; 17]), format!("\"{}\"", "01".repeat(17)));
        assert_eq!(json(Format::Unsigned, &[]), "null");
        assert_eq!(json(Format::Signed, &[255]), "-1");
        assert_eq!(json(Format::Signed, &[0x80, 0, 0, 0]), "-2147483648");
        assert_eq!(json(Format::Signed, &[0, 128]), "128");
        assert_eq!(json(Format::Signed, &[255; 16]), "-1");
        assert_eq!(json(Format::Signed, &[255; 17]), format!("\"{}\"", "ff".repeat(17)));
        for number in [9, 10, 99, 100, 12_345_678_901_234_567_890] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn floats_and_booleans() {
        assert_eq!(json(Format::Float, &0.1_f64.to_be_bytes()), "0.1");
        assert_eq!(json(Format::Float, &0.1_f32.to_be_bytes()), "0.1");
        assert_eq!(json(Format::Float, &3e300_f64.to_be_bytes()), "3e300");
        assert_eq!(json(Format::Float, &f64::NAN.to_be_bytes()), "null");
        assert_eq!(json(Format::Float, &f32::NEG_INFINITY.to_be_bytes()), "null");
        assert_eq!(json(Format::Float, &[1, 2]), "\"0102\"");
        assert_eq!(json(Format::Boolean, &[1]), "true");
        assert_eq!(json(Format::Boolean, &[2]), "false");
        assert_eq!(json(Format::Boolean, &[0]), "\"00\"");
    }

    #[test]
    fn addresses() {
        assert_eq!(json(Format::Mac, &[0, 0x1a, 0xff, 3, 4, 5]), "\"00:1a:ff:03:04:05\"");
        assert_eq!(json(Format::Mac, &[1, 2]), "\"0102\"");
        assert_eq!(json(Format::Ipv4, &[192, 0, 2, 1]), "\"192.0.2.1\"");
        assert_eq!(json(Format::Ipv4, &[192, 0, 2]), "\"c00002\"");
        assert_eq!(json(Format::Ipv4, &[]), "null");
        let mut address = [0; 16];
        (address[0], address[15]) = (0x20, 1);
        assert_eq!(json(Format::Ipv6, &address), "\"2000::1\"");
        assert_eq!(json(Format::Ipv6, &[1; 4]), "\"01010101\"");
    }

    #[test]
    fn texts() {
        assert_eq!(json(Format::String, b"Gi0/1\0\0\0"), "\"Gi0/1\"");
        assert_eq!(json(Format::String, b"a\0b"), "\"a\\u0000b\"");
        assert_eq!(json(Format::String, b""), "\"\"");
        assert_eq!(json(Format::String, b"\"\\\n\r\t\x7f\x01"), r#""\"\\\n\r\t\u007f\u0001""#);
        assert_eq!(json(Format::String, b"\xc3\xa4\xff"), "\"\u{e4}\u{fffd}\"");
        assert_eq!(json(Format::Octets, &[0, 255]), "\"00ff\"");
        assert_eq!(json(Format::Octets, &[]), "\"\"");
    }

    #[test]
    fn times() {
        assert_eq!(json(Format::Seconds, &[1, 0]), "256000");
        assert_eq!(json(Format::Seconds, &[255; 8]), (u128::from(u64::MAX) * 1000).to_string());
        assert_eq!(json(Format::Milliseconds, &[1, 0, 0]), "65536");
        assert_eq!(json(Format::Milliseconds, &[1; 9]), format!("\"{}\"", "01".repeat(9)));
        let half = ((3_818_448_000_u64 << 32) | 0x8000_0000).to_be_bytes();
        assert_eq!(json(Format::Microseconds, &half), "\"2021-01-01T00:00:00.500000Z\"");
        assert_eq!(json(Format::Nanoseconds, &half), "\"2021-01-01T00:00:00.500000000Z\"");
        assert_eq!(json(Format::Nanoseconds, &[1; 4]), "\"01010101\"");
    }

    #[test]
    fn every_type_and_length_is_json() {
        for format in [
            Format::Unsigned,
            Format::Signed,
            Format::Float,
            Format::Boolean,
            Format::Mac,
            Format::Ipv4,
            Format::Ipv6,
            Format::String,
            Format::Seconds,
            Format::Milliseconds,
            Format::Microseconds,
            Format::Nanoseconds,
            Format::Octets,
        ] {
            for length in 0..40 {
                for byte in [0, 1, 0x7f, 0x80, 255] {
                    json(format, &vec![byte; length]);
                }
            }
        }
    }
}
