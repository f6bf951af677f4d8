//! Why packets were discarded, as forwardingStatus (element 89; IANA, "Forwarding Status (Value 89)").

/// Dropped, for a reason that the registry has no code for.
const DROPPED: u8 = 128;

/// The status of a packet dropped for one of sFlow's reasons. Codes 0 to 15 are ICMP's of destination unreachable
/// (sFlow version 5, "Input/output port information"), the others those of "sFlow Dropped Packet Notification
/// Structures".
pub(super) fn forwarding_status(reason: u32) -> u8 {
    match reason {
        // Prohibited by policy, and the sender is told: ACL deny.
        9 | 10 | 13 => 129,
        // acl: ACL drop.
        258 => 130,
        // No way to a network or host, non_routable_packet: unroutable.
        0 | 1 | 6 | 7 | 11 | 12 | 281 => 131,
        // unresolved_neigh: adjacency.
        279 => 132,
        // Fragmentation is needed and not allowed.
        4 => 133,
        // ttl_exceeded: bad TTL.
        257 => 137,
        // traffic_shaping: policer.
        261 => 138,
        // red: WRED.
        260 => 139,
        // mc_reverse_path_forwarding: RPF.
        280 => 140,
        _ => DROPPED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_with_and_without_an_equal() {
        for (reason, status) in [(0, 131), (4, 133), (13, 129), (257, 137), (258, 130), (14, 128), (256, 128)]
        {
            assert_eq!(forwarding_status(reason), status, "{reason}");
        }
        assert_eq!(forwarding_status(u32::MAX), DROPPED);
    }
}
