//! Who is there: sites, their hosts and interfaces, and the internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As many sites have a name.
pub const MAX_SITES: usize = SITE_NAMES.len();

pub(super) const SITE_NAMES: [&str; 8] =
    ["lisbon", "oslo", "vienna", "dublin", "athens", "turin", "gdansk", "malmo"];

pub(super) const WAN: u32 = 1;
pub(super) const LAN: u32 = 2;
pub(super) const DMZ: u32 = 3;
pub(super) const CORE: u32 = 4;

/// Number, name and description of the interfaces that every site has.
pub(super) const INTERFACES: [(u32, &str, &str); 4] = [
    (WAN, "wan0", "uplink to the internet"),
    (LAN, "lan0", "desks"),
    (DMZ, "dmz0", "dns, web, mail"),
    (CORE, "core0", "databases, files, backup"),
];

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Desk,
    Dns,
    Web,
    Mail,
    Database,
    Files,
    Backup,
    /// Outside of all sites.
    Internet,
}

/// Role, name, interface and how many of them a site has.
pub(super) const SITE_HOSTS: [(Role, &str, u32, u8); 7] = [
    (Role::Desk, "desk", LAN, 12),
    (Role::Dns, "dns", DMZ, 1),
    (Role::Web, "web", DMZ, 2),
    (Role::Mail, "mail", DMZ, 1),
    (Role::Database, "db", CORE, 2),
    (Role::Files, "files", CORE, 1),
    (Role::Backup, "backup", CORE, 1),
];

pub(super) const INTERNET_HOSTS: u8 = 24;

/// A host of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Such as `web-2.oslo`.
    pub name: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Where it stands; `None` on the internet.
    pub(super) site: Option<usize>,
    /// The interface of the site's exporter that it is behind.
    pub(super) interface: u32,
}

impl Host {
    /// Its address of the one or the other family.
    pub(super) fn address(&self, ipv6: bool) -> IpAddr {
        if ipv6 { IpAddr::V6(self.ipv6) } else { IpAddr::V4(self.ipv4) }
    }
}

/// All hosts of so many sites, site by site in the order of [`SITE_HOSTS`], then the internet's.
pub(super) fn all(sites: usize) -> Vec<Host> {
    let mut hosts = Vec::new();
    for (site, site_name) in SITE_NAMES.iter().enumerate().take(sites) {
        for (group, (_, role_name, interface, count)) in (1u8..).zip(SITE_HOSTS) {
            for number in 1..=count {
                hosts.push(site_host(site, group, number, (site_name, role_name), interface));
            }
        }
    }
    hosts.extend((1..=INTERNET_HOSTS).map(internet_host));
    hosts
}

fn site_host(site: usize, group: u8, number: u8, names: (&str, &str), interface: u32) -> Host {
    let (site_name, role_name) = names;
    // At most `MAX_SITES`.
    let site_number = u8::try_from(site + 1).unwrap_or(u8::MAX);
    Host {
        name: format!("{role_name}-{number}.{site_name}"),
        ipv4: Ipv4Addr::new(10, site_number, group, number),
        ipv6: Ipv6Addr::new(0xfd00, 0, 0, u16::from(site_number), 0, 0, u16::from(group), u16::from(number)),
        site: Some(site),
        interface,
    }
}

/// Documentation addresses (RFC 5737, RFC 3849), so that no one real is in it.
fn internet_host(number: u8) -> Host {
    Host {
        name: format!("host-{number}.example"),
        ipv4: Ipv4Addr::new(198, 51, 100, number),
        ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)),
        site: None,
        interface: WAN,
    }
}
