//! The program that gives each exporter a shard: classic BPF over the packet, by source address alone.

use libc::sock_filter;
use std::net::IpAddr;

/// Spreads neighbouring addresses, which differ in their low bits, over all.
const SPREAD: u32 = 0x9e37_79b1;
const SPREAD_SHIFT: u32 = 16;

/// The shard, of so many, that the kernel gives this address's datagrams to: the same reckoning as `program`'s. IPv4
/// as it is, also where it came to a socket of both families.
pub fn shard_of(address: IpAddr, shards: usize) -> usize {
    let word = match address.to_canonical() {
        IpAddr::V4(address) => u32::from(address),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            words.iter().fold(0, |sum, word| sum ^ u32::from_be_bytes(*word))
        }
    };
    (word.wrapping_mul(SPREAD) >> SPREAD_SHIFT) as usize % shards.max(1)
}

/// Where the network header begins, in the kernel's numbering (SKF_NET_OFF).
const NETWORK: u32 = -0x10_0000_i32 as u32;

// Operation codes of classic BPF (linux/bpf_common.h), class | size | mode or operation.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const TO_X: u16 = 0x07;
const XOR_X: u16 = 0xac;
const MULTIPLY: u16 = 0x24;
const SHIFT_RIGHT: u16 = 0x74;
const MODULO: u16 = 0x94;
const IF_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x16;

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Hashes the source address (IPv4: bytes 12 to 15 of the header, IPv6: 8 to 23) and takes it modulo `shards`.
pub(super) fn program(shards: u32) -> [sock_filter; 18] {
    const IPV4_STEPS: u8 = 2;
    [
        step(LOAD_BYTE, NETWORK),
        step(SHIFT_RIGHT, 4),
        sock_filter { code: IF_EQUAL, jt: IPV4_STEPS, jf: 0, k: 6 },
        step(LOAD_WORD, NETWORK + 12),
        step(JUMP, 10),
        step(LOAD_WORD, NETWORK + 8),
        step(TO_X, 0),
        step(LOAD_WORD, NETWORK + 12),
        step(XOR_X, 0),
        step(TO_X, 0),
        step(LOAD_WORD, NETWORK + 16),
        step(XOR_X, 0),
        step(TO_X, 0),
        step(LOAD_WORD, NETWORK + 20),
        step(XOR_X, 0),
        step(MULTIPLY, SPREAD),
        step(SHIFT_RIGHT, SPREAD_SHIFT),
        step(MODULO, shards),
    ]
}

/// The last step: the shard's number is the verdict.
pub(super) const VERDICT: sock_filter = step(RETURN, 0);
