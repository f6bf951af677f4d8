//! What the kernel says over rtnetlink, as far as names go: `struct nlmsghdr`, `ifinfomsg`, `ifaddrmsg` and three of their
//! attributes (rtnetlink(7)). All integers are in the host's order.
//!
//! ```text
//!  0               4       6       8               12              16
//! +---------------+-------+-------+---------------+---------------+
//! | length        | type  | flags | sequence      | port          |  nlmsghdr; the next one begins at a multiple of 4
//! +---+---+-------+---------------+---------------+---------------+
//! |fam| 0 | type  | index         | flags         | change        |  ifinfomsg, after it attributes
//! +---+---+---+---+---------------+---------------+---------------+
//! |fam|len|flg|scp| index         |                                  ifaddrmsg, after it attributes
//! +---+---+---+---+---------------+
//! | length| type  | value ...                                        attribute; the next one begins at a multiple of 4
//! +-------+-------+
//! ```
//!
//! Attributes that are not looked for may hold what they like: newer kernels have more, and shapes of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;
/// The two highest bits of an attribute's type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const ATTRIBUTE_TYPE: u16 = 0x3FFF;

const DONE: u16 = libc::NLMSG_DONE as u16;
const FAILED: u16 = libc::NLMSG_ERROR as u16;
const OVERRUN: u16 = libc::NLMSG_OVERRUN as u16;
const DUMP_INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The request that it answers; 0 for what the kernel says by itself.
    pub(super) sequence: u32,
    /// Something changed while the answer was made: some of it may be missing.
    pub(super) is_interrupted: bool,
    pub(super) body: Body,
}

/// An address of an interface. The same one may be there twice, with prefixes of two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// An interface that is there: new, changed, or told when asked.
    Link { index: u32, name: String, alias: String },
    /// One that is gone.
    LinkGone { index: u32 },
    /// An address that is there.
    Address(Held),
    /// One that is gone.
    AddressGone(Held),
    /// An answer is complete, or has failed with this error number.
    End { error: i32 },
    /// Messages were lost.
    Overrun,
    /// Nothing that concerns names.
    Other,
}

/// The bytes are no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Takes the first message off `bytes`.
pub(super) fn next(bytes: &mut &[u8]) -> Result<Message, Unreadable> {
    let header: [u8; HEADER] = *bytes.first_chunk().ok_or(Unreadable)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header;
    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
    let (kind, flags) = (u16::from_ne_bytes([e, f]), u16::from_ne_bytes([g, h]));
    let payload = bytes.get(HEADER..length).ok_or(Unreadable)?;
    *bytes = bytes.get(padded(length)..).unwrap_or_default();
    Ok(Message {
        sequence: u32::from_ne_bytes([i, j, k, l]),
        is_interrupted: flags & DUMP_INTERRUPTED != 0,
        body: body(kind, payload)?,
    })
}

fn body(kind: u16, payload: &[u8]) -> Result<Body, Unreadable> {
    Ok(match kind {
        libc::RTM_NEWLINK => link(payload)?,
        libc::RTM_DELLINK => match link(payload)? {
            Body::Link { index, .. } => Body::LinkGone { index },
            other => other,
        },
        libc::RTM_NEWADDR => address(payload)?.map_or(Body::Other, Body::Address),
        libc::RTM_DELADDR => address(payload)?.map_or(Body::Other, Body::AddressGone),
        DONE | FAILED => {
            // An answer without it, as old kernels give, is whole.
            let error = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
            Body::End { error: error.saturating_neg().max(0) }
        }
        OVERRUN => Body::Overrun,
        _ => Body::Other,
    })
}

fn link(payload: &[u8]) -> Result<Body, Unreadable> {
    let header: &[u8; LINK_HEADER] = payload.first_chunk().ok_or(Unreadable)?;
    let [family, _, _, _, a, b, c, d, ..] = *header;
    // Bridges tell of their ports with a family of their own: one that leaves its bridge is not gone.
    if i32::from(family) != libc::AF_UNSPEC {
        return Ok(Body::Other);
    }
    let index = u32::from_ne_bytes([a, b, c, d]);
    let (mut name, mut alias) = (String::new(), String::new());
    for attribute in attributes(payload, LINK_HEADER) {
        match attribute? {
            (libc::IFLA_IFNAME, value) => name = text(value),
            (libc::IFLA_IFALIAS, value) => alias = text(value),
            _ => {}
        }
    }
    Ok(Body::Link { index, name, alias })
}

/// `None`: of a family without IP addresses.
fn address(payload: &[u8]) -> Result<Option<Held>, Unreadable> {
    let header: &[u8; ADDRESS_HEADER] = payload.first_chunk().ok_or(Unreadable)?;
    let [_, prefix, _, _, a, b, c, d] = *header;
    let (mut own, mut other) = (None, None);
    for attribute in attributes(payload, ADDRESS_HEADER) {
        match attribute? {
            (libc::IFA_LOCAL, value) => own = ip(value),
            // Of a line between two it is the far end, if there is an IFA_LOCAL.
            (libc::IFA_ADDRESS, value) => other = ip(value),
            _ => {}
        }
    }
    let index = u32::from_ne_bytes([a, b, c, d]);
    Ok(own.or(other).map(|address| Held { index, address, prefix }))
}

fn attributes(payload: &[u8], from: usize) -> impl Iterator<Item = Result<(u16, &[u8]), Unreadable>> {
    let mut rest = payload.get(from..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = attribute(&mut rest);
        if read.is_none() {
            rest = &[];
        }
        Some(read.ok_or(Unreadable))
    })
}

fn attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let [a, b, c, d]: [u8; ATTRIBUTE_HEADER] = *rest.first_chunk()?;
    let length = usize::from(u16::from_ne_bytes([a, b]));
    let value = rest.get(ATTRIBUTE_HEADER..length)?;
    *rest = rest.get(padded(length)..).unwrap_or_default();
    Some((u16::from_ne_bytes([c, d]) & ATTRIBUTE_TYPE, value))
}

fn padded(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Texts end with a zero.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// Asks for everything: all links, or all addresses of all families.
pub(super) fn request(kind: u16, sequence: u32) -> Vec<u8> {
    let body = if kind == libc::RTM_GETLINK { LINK_HEADER } else { ADDRESS_HEADER };
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = Vec::with_capacity(HEADER + body);
    bytes.extend_from_slice(&((HEADER + body) as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.resize(HEADER + body, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded_to_4(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.resize(padded(bytes.len()), 0);
        bytes
    }

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        padded_to_4([&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat())
    }

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = (HEADER + payload.len()) as u32;
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes()].concat();
        padded_to_4([&header[..], &sequence.to_ne_bytes(), &[0; 4], payload].concat())
    }

    fn link_payload(family: u8, index: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[family, 0, 1, 0][..], &index.to_ne_bytes(), &[0; 8], &attributes.concat()].concat()
    }

    fn one(bytes: &[u8]) -> Message {
        let mut rest = bytes;
        let message = next(&mut rest).unwrap();
        assert!(rest.is_empty());
        message
    }

    #[test]
    fn a_link_has_its_name_and_alias() {
        let attributes = [
            // Whatever this is, it is not looked into.
            attribute_of(0x8000 | 26, &[1, 2, 3]),
            attribute_of(libc::IFLA_IFNAME, b"eth1\0"),
            attribute_of(libc::IFLA_IFALIAS, b"uplink to Paris\0"),
        ];
        let bytes = message(libc::RTM_NEWLINK, 0, 7, &link_payload(0, 3, &attributes));
        let body = Body::Link { index: 3, name: "eth1".to_owned(), alias: "uplink to Paris".to_owned() };
        assert_eq!(one(&bytes), Message { sequence: 7, is_interrupted: false, body });
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        let attributes = [attribute_of(libc::IFLA_IFNAME, b"eth1\0")];
        let family = libc::AF_BRIDGE as u8;
        let left = message(libc::RTM_DELLINK, 0, 0, &link_payload(family, 3, &attributes));
        assert_eq!(one(&left).body, Body::Other);
        let gone = message(libc::RTM_DELLINK, 0, 0, &link_payload(0, 3, &attributes));
        assert_eq!(one(&gone).body, Body::LinkGone { index: 3 });
    }

    #[test]
    fn of_a_line_between_two_the_own_end_counts() {
        let attributes =
            [attribute_of(libc::IFA_ADDRESS, &[10, 0, 0, 2]), attribute_of(libc::IFA_LOCAL, &[10, 0, 0, 1])];
        let header = [libc::AF_INET as u8, 32, 0, 0, 5, 0, 0, 0];
        let bytes = message(libc::RTM_NEWADDR, 0, 0, &[&header[..], &attributes.concat()].concat());
        let address = IpAddr::from([10, 0, 0, 1]);
        // The index is in the host's order.
        let index = u32::from_ne_bytes([5, 0, 0, 0]);
        assert_eq!(one(&bytes).body, Body::Address(Held { index, address, prefix: 32 }));
        let six = Ipv6Addr::LOCALHOST;
        let only = attribute_of(libc::IFA_ADDRESS, &six.octets());
        let bytes = message(libc::RTM_DELADDR, 0, 0, &[&header[..], &only].concat());
        assert_eq!(one(&bytes).body, Body::AddressGone(Held { index, address: six.into(), prefix: 32 }));
    }

    #[test]
    fn several_messages_follow_each_other() {
        let first = message(libc::RTM_NEWLINK, DUMP_INTERRUPTED, 1, &link_payload(0, 1, &[]));
        let failed = (-libc::EPERM).to_ne_bytes();
        let bytes = [first, message(DONE, 0, 1, &[0; 4]), message(FAILED, 0, 1, &failed)].concat();
        let mut rest = &bytes[..];
        assert!(next(&mut rest).unwrap().is_interrupted);
        assert_eq!(next(&mut rest).unwrap().body, Body::End { error: 0 });
        assert_eq!(next(&mut rest).unwrap().body, Body::End { error: libc::EPERM });
        assert!(rest.is_empty());
    }

    #[test]
    fn every_shorter_prefix_is_refused() {
        let attributes = [attribute_of(libc::IFLA_IFNAME, b"eth1\0\0\0\0")];
        let bytes = message(libc::RTM_NEWLINK, 0, 0, &link_payload(0, 3, &attributes));
        for length in 0..bytes.len() {
            assert_eq!(next(&mut &bytes[..length]), Err(Unreadable), "{length}");
        }
        // The message's own length is right, and the attribute's goes beyond it.
        let short = message(libc::RTM_NEWLINK, 0, 0, &link_payload(0, 3, &[vec![40, 0, 3, 0]]));
        let is_little = u16::from_ne_bytes([40, 0]) == 40;
        assert_eq!(next(&mut &short[..]).is_err(), is_little || short.len() < 10_240);
        // Lengths that would not move on.
        assert_eq!(next(&mut &[0; 64][..]), Err(Unreadable));
    }

    #[test]
    fn requests_are_messages_of_the_kernel_s_form() {
        let links = request(libc::RTM_GETLINK, 9);
        assert_eq!(links.len(), 32);
        assert_eq!(links[0..4], 32u32.to_ne_bytes());
        assert_eq!(links[4..6], libc::RTM_GETLINK.to_ne_bytes());
        assert_eq!(links[8..12], 9u32.to_ne_bytes());
        assert_eq!(request(libc::RTM_GETADDR, 1).len(), 24);
    }
}
