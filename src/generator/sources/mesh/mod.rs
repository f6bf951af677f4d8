//! A mesh of named hosts that talk at random: sites with desks and servers, and the internet around them.
//!
//! Pure: the same seed gives the same conversations, on every machine; only their times follow `now`. Sizes
//! are heavy-tailed: most conversations are small, few carry most of the bytes. A conversation is two
//! flows, there and back, told by the exporter of one site: the client's, or the server's when the client
//! is on the internet.
//!
//! ```text
//!                  internet (documentation addresses)
//!                     | wan0          | wan0
//!      desks ---- [ site ]         [ site ] ---- desks      10.SITE.0.0/16, fd00:0:0:SITE::/64
//!           lan0   |    |           |    |
//!               dmz0   core0     dmz0   core0
//!            dns web mail   db files backup
//! ```

mod hosts;
mod random;
mod services;
#[cfg(test)]
mod tests;

pub use hosts::{Host, MAX_SITES};

use crate::generator::export::{Flow, Interface};
use hosts::{INTERFACES, INTERNET_HOSTS, Role, SITE_HOSTS, SITE_NAMES, WAN};
use random::Random;
use services::{
    ACK_BYTES, ECHO, ECHO_V6, EPHEMERAL_PORTS, ICMP, ICMPV6, Place, SERVICES, Service, TCP, TCP_SYN,
    TCP_WHOLE,
};

/// What the mesh is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The same seed gives the same conversations.
    pub seed: u64,
    /// Sites, each with an exporter: 2 to [`MAX_SITES`]; what lies outside is taken as the nearest.
    pub sites: usize,
    /// How many conversations of a hundred are over IPv6.
    pub ipv6_percent: u8,
}

/// The hosts and what they will say next.
#[derive(Debug)]
pub struct Mesh {
    random: Random,
    sites: usize,
    ipv6_percent: u8,
    hosts: Vec<Host>,
    /// The way back of the conversation begun last.
    pending: Option<(usize, Flow)>,
}

impl Mesh {
    /// A mesh that has not said anything yet.
    pub fn new(settings: &Settings) -> Mesh {
        let sites = settings.sites.clamp(2, MAX_SITES);
        Mesh {
            random: Random(settings.seed),
            sites,
            ipv6_percent: settings.ipv6_percent.min(100),
            hosts: hosts::all(sites),
            pending: None,
        }
    }

    /// All hosts, those of the sites first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The names of the sites, each of which has one exporter.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &'static str> + use<> {
        SITE_NAMES.into_iter().take(self.sites)
    }

    /// The interfaces that every site's exporter has.
    pub fn interfaces() -> Vec<Interface> {
        let interface = |(number, name, description): (u32, &str, &str)| Interface {
            number,
            name: name.to_owned(),
            description: description.to_owned(),
        };
        INTERFACES.into_iter().map(interface).collect()
    }

    /// The next flow, with the place of its exporter in [`Mesh::sites`]. It ended one to three seconds before
    /// `now` (milliseconds since 1970).
    pub fn next_flow(&mut self, now: u64) -> (usize, Flow) {
        match self.pending.take() {
            Some(back) => back,
            None => self.converse(now),
        }
    }

    /// Makes up a conversation: its first flow is returned, the way back is pending.
    fn converse(&mut self, now: u64) -> (usize, Flow) {
        let service = self.pick_service();
        let ipv6 = self.random.below(100) < u32::from(self.ipv6_percent);
        let site = self.random.skewed(self.sites);
        let (client, server) = self.pick_hosts(&service, site);
        #[expect(clippy::indexing_slicing, reason = "pick_hosts gives places in `hosts`")]
        let (from, to) = (&self.hosts[client], &self.hosts[server]);
        // The exporter's site sees its own hosts behind their interfaces and all others behind the wan.
        let exporter = from.site.or(to.site).unwrap_or(site);
        let behind = |host: &Host| if host.site == Some(exporter) { host.interface } else { WAN };
        let (there_bytes, back_bytes) = service.bytes;
        let last = now.saturating_sub(1_000 + u64::from(self.random.below(2_000)));
        let there = Flow {
            source: from.address(ipv6),
            destination: to.address(ipv6),
            source_port: 0,
            destination_port: service.port,
            protocol: service.protocol,
            tos: service.tos,
            tcp_flags: 0,
            icmp: 0,
            packets: 1,
            bytes: there_bytes,
            input: behind(from),
            output: behind(to),
            first: last,
            last,
        };
        let there = self.with_protocol(there, ipv6);
        if there.tcp_flags == TCP_SYN {
            return (exporter, there);
        }
        let (there, back) = self.with_sizes(there, back_bytes, service.packet_bytes);
        self.pending = Some((exporter, back));
        (exporter, there)
    }

    /// Sets ports, flags and ICMP type.
    fn with_protocol(&mut self, mut flow: Flow, ipv6: bool) -> Flow {
        if flow.protocol == ICMP {
            if ipv6 {
                flow.protocol = ICMPV6;
            }
            let (request, _) = if ipv6 { ECHO_V6 } else { ECHO };
            flow.icmp = request;
            // Collectors without the ICMP element look for type and code here.
            flow.destination_port = request;
            return flow;
        }
        flow.source_port = self.ephemeral_port();
        if flow.protocol == TCP {
            // One of 64 gets no answer.
            let whole = self.random.below(64) != 0;
            flow.tcp_flags = if whole { TCP_WHOLE } else { TCP_SYN };
            if !whole {
                flow.bytes = 60;
            }
        }
        flow
    }

    /// Gives a conversation its sizes and times, and its way back.
    fn with_sizes(&mut self, mut there: Flow, back_bytes: u32, packet_bytes: u32) -> (Flow, Flow) {
        let doublings = self.random.doublings();
        // What is asked for is small unless the service sends more than it gets.
        let (there_doublings, back_doublings) =
            if there.bytes > back_bytes { (doublings, 0) } else { (doublings / 4, doublings) };
        let there_data = self.random.stretched(there.bytes, there_doublings);
        let back_data = self.random.stretched(back_bytes, back_doublings);
        let (there_packets, back_packets) =
            (there_data.div_ceil(packet_bytes), back_data.div_ceil(packet_bytes));
        let acks = |packets: u32| if there.protocol == TCP { packets / 2 } else { 0 };
        let (there_acks, back_acks) = (acks(back_packets), acks(there_packets));

        // 128 KiB/s to 16 MiB/s, and a round trip.
        let per_milli = 128 << self.random.below(8);
        let millis = 1 + self.random.below(80) + there_data.max(back_data) / per_milli;
        there.first = there.last.saturating_sub(u64::from(millis).min(60_000));
        let mut back = Flow {
            source: there.destination,
            destination: there.source,
            source_port: there.destination_port,
            destination_port: there.source_port,
            input: there.output,
            output: there.input,
            packets: back_packets + back_acks,
            bytes: back_data + back_acks * ACK_BYTES,
            ..there
        };
        there.packets = there_packets + there_acks;
        there.bytes = there_data + there_acks * ACK_BYTES;
        if there.icmp != 0 {
            back.icmp = if there.protocol == ICMPV6 { ECHO_V6.1 } else { ECHO.1 };
            (back.source_port, back.destination_port) = (0, back.icmp);
        }
        (there, back)
    }

    fn pick_service(&mut self) -> Service {
        let mut left = self.random.below(SERVICES.iter().map(|service| service.weight).sum());
        let found = SERVICES.into_iter().find(|service| match left.checked_sub(service.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        found.unwrap_or(SERVICES[0])
    }

    /// Places of a client and a server in [`Mesh::hosts`], one of them at `site`.
    fn pick_hosts(&mut self, service: &Service, site: usize) -> (usize, usize) {
        let apart = service.place == Place::Far || self.random.below(5) == 0;
        let other = (site + 1 + self.random.skewed(self.sites - 1)) % self.sites;
        let client = self.pick_host(service.client, site);
        let server = match service.client {
            Role::Internet => self.pick_host(service.server, site),
            _ => self.pick_host(service.server, if apart { other } else { site }),
        };
        (client, server)
    }

    /// One of a site's hosts of a role, the first ones more often.
    fn pick_host(&mut self, role: Role, site: usize) -> usize {
        let per_site = SITE_HOSTS.iter().map(|(_, _, _, count)| usize::from(*count)).sum::<usize>();
        if role == Role::Internet {
            return per_site * self.sites + self.random.skewed(usize::from(INTERNET_HOSTS));
        }
        let mut start = per_site * site;
        for (group, _, _, count) in SITE_HOSTS {
            if group == role {
                return start + self.random.skewed(usize::from(count));
            }
            start += usize::from(count);
        }
        start
    }

    fn ephemeral_port(&mut self) -> u16 {
        let port = EPHEMERAL_PORTS.start + self.random.below(EPHEMERAL_PORTS.end - EPHEMERAL_PORTS.start);
        u16::try_from(port).unwrap_or(u16::MAX)
    }
}
