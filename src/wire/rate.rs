//! How many templates an exporter may change: each change costs work and a write to disk, and is easily forged.
//!
//! A token bucket for each address, of any port. Templates that are known as they are cost nothing.

use super::generations::Generations;
use std::net::IpAddr;

/// Templates, new ones and changed ones, that one address may tell.
#[derive(Clone, Copy, Debug)]
pub struct ChangeLimits {
    /// At once, after a silence.
    pub burst: u32,
    /// A second, from then on.
    pub per_second: u32,
}

impl Default for ChangeLimits {
    /// An exporter that starts with all that a domain may have is not slowed; one that changes its port with every
    /// datagram tells some a second.
    fn default() -> ChangeLimits {
        ChangeLimits { burst: 4_096, per_second: 50 }
    }
}

/// Addresses whose buckets are kept; one that was forgotten has a full one.
const MOST_ADDRESSES: usize = 10_000;

/// Parts of a token: what drops into a bucket in a millisecond is `per_second` of them.
const TOKEN: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In parts of a token.
    level: u64,
    /// When it was filled up to there.
    at: u64,
}

/// The buckets.
#[derive(Debug)]
pub(super) struct Changes {
    limits: ChangeLimits,
    buckets: Generations<IpAddr, Bucket>,
    /// What [`super::Arrival::elapsed`] was last.
    now: u64,
}

impl Changes {
    pub(super) fn new(limits: ChangeLimits) -> Changes {
        Changes { limits, buckets: Generations::new(MOST_ADDRESSES), now: 0 }
    }

    /// Time has come to `elapsed` (see [`super::Arrival::elapsed`]).
    pub(super) fn advance(&mut self, elapsed: u64) {
        self.now = elapsed;
    }

    /// Takes a token of the address, if it has one.
    pub(super) fn admit(&mut self, address: IpAddr) -> bool {
        let Changes { limits, buckets, now } = self;
        let full = u64::from(limits.burst) * TOKEN;
        let mut bucket =
            buckets.get(&address, &mut |_, _| {}).copied().unwrap_or(Bucket { level: full, at: *now });
        let dropped_in = now.saturating_sub(bucket.at).saturating_mul(u64::from(limits.per_second));
        bucket.level = bucket.level.saturating_add(dropped_in).min(full);
        bucket.at = *now;
        let admitted = bucket.level >= TOKEN;
        if admitted {
            bucket.level -= TOKEN;
        }
        buckets.insert(address, bucket, &mut |_, _| {});
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn admitted(changes: &mut Changes, address: IpAddr, tries: usize) -> usize {
        (0..tries).filter(|_| changes.admit(address)).count()
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let mut changes = Changes::new(ChangeLimits { burst: 10, per_second: 4 });
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 10);
        changes.advance(249);
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 0);
        changes.advance(250);
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 1);
        changes.advance(1_250);
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 4);
        changes.advance(1_000_000);
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 10, "no more than the burst is saved up");
        changes.advance(0);
        assert_eq!(admitted(&mut changes, ADDRESS, 20), 0, "time that goes back gives nothing");
    }

    #[test]
    fn each_address_has_its_own_and_the_table_is_bounded() {
        let mut changes = Changes::new(ChangeLimits { burst: 1, per_second: 1 });
        for host in 0..3 * MOST_ADDRESSES as u32 {
            assert!(changes.admit(std::net::Ipv4Addr::from(host).into()));
            assert!(changes.buckets.len() <= MOST_ADDRESSES);
        }
    }
}
