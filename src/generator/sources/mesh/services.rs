//! What hosts do with each other, how often and in which sizes.

use super::hosts::Role;
use std::ops::Range;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
/// ICMP type * 256 + code of echo request and reply (RFC 792, RFC 4443).
pub(super) const ECHO: (u16, u16) = (8 << 8, 0);
pub(super) const ECHO_V6: (u16, u16) = (128 << 8, 129 << 8);

/// A conversation that was opened, used and closed: SYN, ACK, PSH, FIN.
pub(super) const TCP_WHOLE: u8 = 0x1b;
pub(super) const TCP_SYN: u8 = 0x02;
/// An acknowledgement without data: IP and TCP headers with time stamps.
pub(super) const ACK_BYTES: u32 = 52;
pub(super) const EPHEMERAL_PORTS: Range<u32> = 32_768..61_000;

/// Where a service's server stands, seen from its client's site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Mostly at the same site.
    Near,
    /// Always at another site.
    Far,
}

/// Something that hosts do with each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    pub(super) protocol: u8,
    pub(super) port: u16,
    pub(super) client: Role,
    pub(super) server: Role,
    pub(super) place: Place,
    /// The least that goes there and back.
    pub(super) bytes: (u32, u32),
    /// Of a full packet.
    pub(super) packet_bytes: u32,
    pub(super) tos: u8,
    /// How often, against the others.
    pub(super) weight: u32,
}

const fn service(
    (protocol, port): (u8, u16),
    (client, server, place): (Role, Role, Place),
    bytes: (u32, u32),
    packet_bytes: u32,
    weight: u32,
) -> Service {
    Service { protocol, port, client, server, place, bytes, packet_bytes, tos: 0, weight }
}

/// Client and server of a service that may be at one site stand behind different interfaces.
pub(super) const SERVICES: [Service; 14] = [
    service((TCP, 443), (Role::Desk, Role::Internet, Place::Near), (900, 6_000), 1_420, 28),
    service((UDP, 443), (Role::Desk, Role::Internet, Place::Near), (1_300, 9_000), 1_280, 18),
    service((TCP, 443), (Role::Internet, Role::Web, Place::Near), (800, 4_000), 1_420, 16),
    service((TCP, 80), (Role::Internet, Role::Web, Place::Near), (500, 700), 1_420, 3),
    service((UDP, 53), (Role::Desk, Role::Dns, Place::Near), (64, 120), 512, 16),
    service((UDP, 53), (Role::Dns, Role::Internet, Place::Near), (70, 180), 512, 7),
    service((TCP, 993), (Role::Desk, Role::Mail, Place::Near), (600, 2_500), 1_380, 4),
    service((TCP, 25), (Role::Internet, Role::Mail, Place::Near), (3_000, 400), 1_380, 3),
    service((TCP, 5432), (Role::Web, Role::Database, Place::Near), (400, 1_500), 1_460, 9),
    service((TCP, 445), (Role::Desk, Role::Files, Place::Near), (2_000, 24_000), 1_460, 8),
    service((TCP, 22), (Role::Desk, Role::Web, Place::Near), (1_800, 2_400), 900, 2),
    service((TCP, 873), (Role::Database, Role::Backup, Place::Far), (24_000, 600), 1_460, 3),
    Service {
        tos: 0xb8, // expedited forwarding: voice
        ..service((UDP, 5004), (Role::Desk, Role::Desk, Place::Far), (4_000, 4_000), 214, 3)
    },
    service((ICMP, 0), (Role::Desk, Role::Web, Place::Near), (84, 84), 84, 2),
];

/// A flow's size doubles this often at most.
pub(super) const MAX_DOUBLINGS: u32 = 16;
