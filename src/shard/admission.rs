//! Whose datagrams are taken, and how many: what is decided before a byte of a datagram is read.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// The rules; may change while the shard runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Who may send; `None` is everyone.
    pub allow: Option<Networks>,
    /// How much of each address is taken.
    pub limits: Limits,
}

/// What is taken of one source address each second, with a second's worth at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams.
    pub datagrams: Option<u64>,
    /// Bytes of UDP payload.
    pub bytes: Option<u64>,
}

impl Limits {
    /// Is there any?
    pub(super) fn any(&self) -> bool {
        self.datagrams.is_some() || self.bytes.is_some()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.datagrams, self.bytes) {
            (Some(datagrams), None) => write!(f, "{datagrams} datagrams/s"),
            (None, Some(bytes)) => write!(f, "{bytes} bytes/s"),
            (Some(datagrams), Some(bytes)) => write!(f, "{datagrams} datagrams/s and {bytes} bytes/s"),
            (None, None) => f.write_str("nothing"),
        }
    }
}

/// A set of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// None within another, in order: so the only one that can hold an address is the last that begins at or
    /// before it.
    disjoint: Vec<IpNet>,
}

impl Networks {
    /// All addresses of these networks.
    pub fn new(networks: &[IpNet]) -> Networks {
        let mut disjoint = IpNet::aggregate(&networks.to_vec());
        disjoint.sort_by_key(IpNet::network);
        Networks { disjoint }
    }

    /// Is the address in one of them? IPv4 addresses are to be given as such, not mapped into IPv6.
    pub fn contain(&self, address: IpAddr) -> bool {
        let after = self.disjoint.partition_point(|network| network.network() <= address);
        let last = after.checked_sub(1).and_then(|place| self.disjoint.get(place));
        last.is_some_and(|network| network.contains(&address))
    }
}

impl Admission {
    /// May this address send?
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|networks| networks.contain(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(of: &[&str]) -> Networks {
        Networks::new(&of.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_in_their_networks_and_in_no_others() {
        let all = networks(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "203.0.113.0/25"]);
        for inside in
            ["10.0.0.0", "10.1.2.3", "10.255.255.255", "192.0.2.7", "203.0.113.127", "2001:db8:ffff::1"]
        {
            assert!(all.contain(address(inside)), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.8",
            "203.0.113.128",
            "2001:db9::",
            "::1",
            "::",
        ] {
            assert!(!all.contain(address(outside)), "{outside}");
        }
    }

    #[test]
    fn all_of_one_family_is_none_of_the_other() {
        assert!(networks(&["0.0.0.0/0"]).contain(address("255.255.255.255")));
        assert!(!networks(&["0.0.0.0/0"]).contain(address("::1")));
        assert!(networks(&["::/0"]).contain(address("ffff::")));
        assert!(!networks(&["::/0"]).contain(address("127.0.0.1")));
    }

    #[test]
    fn without_a_list_everyone_may_send() {
        assert!(Admission::default().allows(address("198.51.100.1")));
        let only = Admission { allow: Some(networks(&["10.0.0.0/8"])), ..Admission::default() };
        assert!(only.allows(address("10.9.9.9")) && !only.allows(address("198.51.100.1")));
    }
}
