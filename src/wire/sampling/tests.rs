//! Rates and starts of exporters as they are told in the field, by the numbers of what was reported.

use super::*;
use crate::flow::Exporter;
use crate::wire::{Arrival, Decoder, DomainState, Fault, Output, Place, Settings, Template};
use std::sync::Arc;

/// Each record's rate, where it came from, and the run's boot time with its quality.
#[derive(Default)]
struct Got {
    rates: Vec<(u32, SamplingSource)>,
    boots: Vec<(u64, BootQuality)>,
    calls: usize,
    /// The first field of each record of a template without a stride, as one byte.
    first: Vec<u8>,
}

impl Output for Got {
    fn records(&mut self, run: &Run, template: &Template, rows: &[u8], ends: &[u32], count: u32) {
        if template.sampled_by().carries_rate || template.reader().is_some() {
            return;
        }
        self.calls += 1;
        self.rates.extend((0..count).map(|_| (run.sampling_rate, run.sampling_source)));
        self.boots.push((run.boot_time, run.boot_quality));
        assert_eq!(ends.last().map_or(rows.len(), |end| *end as usize), rows.len());
        let starts = std::iter::once(0).chain(ends.iter().map(|end| *end as usize)).take(ends.len());
        self.first.extend(starts.map(|start| rows[start + 1]));
    }
    fn fault(&mut self, fault: Fault, _: Place) {
        panic!("{fault}");
    }
    fn set(&mut self) {}
}

fn options(rate: u32) -> (u32, SamplingSource) {
    (rate, SamplingSource::Options)
}

const UNKNOWN: (u32, SamplingSource) = (0, SamplingSource::Unknown);

/// A router with one address, and what it has sent from each of its ports and domains.
struct Router {
    decoder: Decoder,
    address: IpAddr,
    version: u16,
}

/// (port, domain)
type From = (u16, u32);

const HERE: From = (2055, 0);

impl Router {
    fn new(version: u16) -> Router {
        Router::with(version, Settings::default())
    }

    fn with(version: u16, settings: Settings) -> Router {
        Router { decoder: Decoder::new(settings), address: [192, 0, 2, 1].into(), version }
    }

    fn key(&self, (port, domain): From) -> DomainKey {
        let protocol = if self.version == 9 { Protocol::NetflowV9 } else { Protocol::Ipfix };
        DomainKey { exporter: Exporter { address: self.address, port }, protocol, domain }
    }

    fn send(&mut self, (port, domain): From, sets: &[Vec<u8>]) -> Got {
        let content = sets.concat();
        let mut bytes = self.version.to_be_bytes().to_vec();
        match self.version {
            9 => bytes.extend([&[0, 1][..], &1_000_u32.to_be_bytes()].concat()),
            _ => bytes.extend((16 + content.len() as u16).to_be_bytes()),
        }
        bytes.extend([&[0x65, 0, 0, 0][..], &[0; 4], &domain.to_be_bytes(), &content].concat());
        let exporter = Exporter { address: self.address, port };
        let arrival = Arrival { exporter, received: 1_700_000_000_000, elapsed: 0, number: 0 };
        let mut got = Got::default();
        self.decoder.datagram(&arrival, &bytes, &mut got).unwrap();
        got
    }

    /// Options template 300 and records of it, in whatever protocol.
    fn tell(&mut self, from: From, scope: &[(u16, u16)], fields: &[(u16, u16)], records: &[Vec<u8>]) {
        let fields_of = |fields: &[(u16, u16)]| {
            fields.iter().flat_map(|(a, b)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect::<Vec<_>>()
        };
        let content = [fields_of(scope), fields_of(fields)].concat();
        let (scope, all) = (scope.len() as u16, (scope.len() + fields.len()) as u16);
        let (id, head) = match self.version {
            9 => (1, [300, scope * 4, (all - scope) * 4]),
            _ => (3, [300, all, scope]),
        };
        let head: Vec<u8> = head.iter().flat_map(|number: &u16| number.to_be_bytes()).collect();
        self.send(from, &[set(id, &[head, content].concat()), set(300, &records.concat())]);
    }

    /// NetFlow v9's scope System, or IPFIX's exporting process.
    fn system(&self) -> (u16, u16) {
        (if self.version == 9 { 1 } else { 144 }, 4)
    }

    /// The system tells its rate by 34.
    fn tell_system(&mut self, from: From, rate: u32) {
        self.tell(from, &[self.system()], &[(34, 4)], &[[[0; 4], rate.to_be_bytes()].concat()]);
    }

    /// Interfaces with the samplers on them, without a rate.
    fn bind(&mut self, from: From, bindings: &[(u16, u16)]) {
        let scope = if self.version == 9 { (2, 2) } else { (10, 2) };
        let record = |(interface, id): &(u16, u16)| [interface.to_be_bytes(), id.to_be_bytes()].concat();
        let records: Vec<_> = bindings.iter().map(record).collect();
        self.tell(from, &[scope], &[(48, 2)], &records);
    }

    /// Samplers with their rates, by 48 and 50.
    fn tell_samplers(&mut self, from: From, samplers: &[(u16, u32)]) {
        let record =
            |(id, rate): &(u16, u32)| [&[0; 4][..], &id.to_be_bytes(), &[2], &rate.to_be_bytes()].concat();
        let records: Vec<_> = samplers.iter().map(record).collect();
        self.tell(from, &[self.system()], &[(48, 2), (49, 1), (50, 4)], &records);
    }

    /// Data of a template with the given fields, one byte each after the first; each record's values.
    fn data(&mut self, from: From, elements: &[u16], records: &[&[u8]]) -> Got {
        let fields = elements.iter().flat_map(|element| [element.to_be_bytes(), [0, 1]].concat());
        let head = [256_u16, elements.len() as u16].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        let template = [head, fields.collect()].concat();
        let id = if self.version == 9 { 0 } else { 2 };
        self.send(from, &[set(id, &template), set(256, &records.concat())])
    }

    /// Rates of records that have nothing but a counter.
    fn plain(&mut self, from: From) -> (u32, SamplingSource) {
        self.data(from, &[1], &[&[7]]).rates[0]
    }

    /// Rates of records that name these samplers.
    fn named(&mut self, from: From, samplers: &[u8]) -> Vec<(u32, SamplingSource)> {
        let records: Vec<[u8; 2]> = samplers.iter().map(|id| [7, *id]).collect();
        self.data(from, &[1, 48], &records.iter().map(|r| &r[..]).collect::<Vec<_>>()).rates
    }
}

fn set(id: u16, content: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &(4 + content.len() as u16).to_be_bytes(), content].concat()
}

fn both(mut test: impl FnMut(Router)) {
    [9, 10].into_iter().for_each(|version| test(Router::new(version)));
}

#[test]
fn quirk_30_interval_and_space_make_a_rate() {
    both(|mut router| {
        let record =
            |interval: u32, space: u32| [[0; 4], interval.to_be_bytes(), space.to_be_bytes()].concat();
        let scope = [router.system()];
        for (interval, space, rate) in [(1, 999, 1_000), (2, 3, 3), (10, 0, 1), (1, 0, 1), (3, 1, 1)] {
            router.tell(HERE, &scope, &[(305, 4), (306, 4)], &[record(interval, space)]);
            assert_eq!(router.plain(HERE), options(rate), "{interval} {space}");
        }
    });
}

#[test]
fn quirk_30_an_interval_without_its_space_is_half_a_rate_and_none() {
    both(|mut router| {
        let scope = [router.system()];
        router.tell(HERE, &scope, &[(305, 4)], &[[[0; 4], 1_u32.to_be_bytes()].concat()]);
        assert_eq!(router.plain(HERE), (0, SamplingSource::Unknown));
    });
}

#[test]
fn quirk_37_n_out_of_n_makes_a_rate() {
    both(|mut router| {
        let record = [&[0; 4][..], &5_u16.to_be_bytes(), &2_000_u64.to_be_bytes()].concat();
        let scope = [router.system()];
        router.tell(HERE, &scope, &[(309, 2), (310, 8)], &[record]);
        assert_eq!(router.plain(HERE), options(400));
    });
}

#[test]
fn quirk_32_an_interval_alone_is_a_rate_and_0_is_none() {
    both(|mut router| {
        router.tell_system(HERE, 0);
        assert_eq!(router.plain(HERE), UNKNOWN);
        router.tell_system(HERE, 512);
        assert_eq!(router.plain(HERE), options(512));
        router.tell_system(HERE, 0);
        assert_eq!(router.plain(HERE), UNKNOWN, "0 takes back what was told");
        router.tell_system(HERE, 1);
        assert_eq!(router.plain(HERE), options(1), "1 is a rate");
    });
}

#[test]
fn numbers_of_any_width_and_text_before_them() {
    let mut router = Router::new(10);
    // Scope of 2 bytes, a name of variable length in front, the rate in 3 bytes.
    let record = [&[0, 0][..], &[3], b"abc", &[0, 4, 0]].concat();
    router.tell(HERE, &[(144, 2)], &[(84, Field::VARIABLE), (34, 3)], &[record.clone(), record]);
    assert_eq!(router.plain(HERE), options(1_024));
    // In 12 bytes, of which the first are 0.
    router.tell(HERE, &[(144, 2)], &[(34, 12)], &[vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 232]]);
    assert_eq!(router.plain(HERE), options(1_000));
}

#[test]
fn quirk_33_a_sampler_s_id_may_have_another_width_than_in_the_options() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 1_000), (2, 4_000)]);
        assert_eq!(router.named(HERE, &[1, 2, 2, 1]), [1_000, 4_000, 4_000, 1_000].map(options));
        // selectorId, of two bytes.
        let template = [256_u16, 2, 1, 1, 302, 2].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        let id = if router.version == 9 { 0 } else { 2 };
        let got = router.send(HERE, &[set(id, &template), set(256, &[7, 0, 2, 7, 0, 1])]);
        assert_eq!(got.rates, [options(4_000), options(1_000)]);
    });
}

#[test]
fn quirk_33_sampler_0_is_the_only_one_as_long_as_none_is_named() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(7, 1_000)]);
        assert_eq!(router.named(HERE, &[0, 0]), [options(1_000); 2]);
        router.tell_samplers(HERE, &[(8, 2_000)]);
        assert_eq!(router.named(HERE, &[0]), [UNKNOWN], "there are two");
        router.tell_samplers(HERE, &[(0, 50)]);
        assert_eq!(router.named(HERE, &[0]), [options(50)], "there is one of that id");
    });
}

#[test]
fn quirk_37_where_samplers_are_named_0_is_not_sampled() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(7, 1_000)]);
        assert_eq!(router.named(HERE, &[7, 0]), [options(1_000), UNKNOWN]);
        assert_eq!(router.named(HERE, &[0]), [UNKNOWN]);
    });
}

#[test]
fn quirk_37_an_unknown_sampler_has_no_other_s_rate() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(7, 1_000)]);
        assert_eq!(router.named(HERE, &[7, 9, 7]), [options(1_000), UNKNOWN, options(1_000)]);
    });
}

#[test]
fn records_without_a_sampler_have_the_rate_of_all_samplers() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 1_000), (2, 1_000)]);
        assert_eq!(router.plain(HERE), options(1_000));
        router.tell_samplers(HERE, &[(2, 500)]);
        assert_eq!(router.plain(HERE), UNKNOWN);
        router.tell_system(HERE, 100);
        assert_eq!(router.plain(HERE), options(100), "the system's is meant more");
    });
}

#[test]
fn quirk_37_rates_of_some_interfaces_are_not_the_others() {
    for (version, scope) in [(9, 2), (10, 10)] {
        let mut router = Router::new(version);
        let record = |interface: u16, rate: u32| [&interface.to_be_bytes()[..], &rate.to_be_bytes()].concat();
        router.tell(HERE, &[(scope, 2)], &[(34, 4)], &[record(3, 100), record(4, 200)]);
        let got = router.data(HERE, &[1, 10], &[&[7, 3], &[7, 3], &[7, 4], &[7, 5]]);
        assert_eq!(got.rates, [options(100), options(100), options(200), UNKNOWN]);
        assert_eq!(got.calls, 3);
        assert_eq!(router.plain(HERE), UNKNOWN);
        router.tell_system(HERE, 50);
        let got = router.data(HERE, &[1, 10], &[&[7, 5], &[7, 4]]);
        assert_eq!(got.rates, [options(50), options(200)]);
    }
}

#[test]
fn quirk_37_a_sampler_bound_to_an_interface_is_not_the_others() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 100), (2, 200)]);
        router.bind(HERE, &[(3, 1), (4, 2)]);
        let rates = |router: &mut Router, interfaces: &[u8]| {
            let records: Vec<[u8; 2]> = interfaces.iter().map(|interface| [7, *interface]).collect();
            router.data(HERE, &[1, 10], &records.iter().map(|r| &r[..]).collect::<Vec<_>>()).rates
        };
        assert_eq!(rates(&mut router, &[3, 4, 5, 3]), [options(100), options(200), UNKNOWN, options(100)]);
        assert_eq!(router.plain(HERE), UNKNOWN, "nothing says by which interface it came");
        // Another sampler, none any more, and one that is not told yet.
        router.bind(HERE, &[(3, 2), (4, 0), (5, 9)]);
        assert_eq!(rates(&mut router, &[3, 4, 5]), [options(200), UNKNOWN, UNKNOWN]);
        router.tell_samplers(HERE, &[(9, 900)]);
        assert_eq!(rates(&mut router, &[3, 5]), [options(200), options(900)]);
        router.tell_system(HERE, 50);
        assert_eq!(rates(&mut router, &[3, 4]), [options(200), options(50)], "the system's is everyone's");
        let got = router.data(HERE, &[1, 10, 48], &[&[7, 3, 1], &[7, 4, 9], &[7, 3, 8]]);
        assert_eq!(got.rates, [options(100), options(900), UNKNOWN], "what a record names is its sampler");
    });
}

#[test]
fn quirk_37_the_only_sampler_bound_to_an_interface_is_not_the_others() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 100)]);
        let records: [&[u8]; 2] = [&[7, 3], &[7, 5]];
        assert_eq!(router.data(HERE, &[1, 10], &records).rates, [options(100), options(100)]);
        router.bind(HERE, &[(3, 1)]);
        assert_eq!(router.data(HERE, &[1, 10], &records).rates, [options(100), UNKNOWN]);
        assert_eq!(router.named(HERE, &[0]), [UNKNOWN]);
        router.bind(HERE, &[(3, 0)]);
        assert_eq!(router.data(HERE, &[1, 10], &records).rates, [options(100), options(100)], "it is free");
    });
}

#[test]
fn quirk_37_a_binding_may_tell_the_sampler_s_rate_and_outlives_a_restart() {
    both(|mut router| {
        let scope = if router.version == 9 { (2, 2) } else { (10, 2) };
        router.tell(HERE, &[scope], &[(302, 1), (34, 2)], &[vec![0, 3, 1, 0, 100]]);
        let records: [&[u8]; 2] = [&[7, 3], &[7, 5]];
        assert_eq!(router.data(HERE, &[1, 10], &records).rates, [options(100), UNKNOWN]);
        let key = router.key(HERE);
        let saved = router.decoder.saved(&key).unwrap();
        let mut again = Router::new(router.version);
        assert_eq!(again.decoder.restore(key, &saved).refused, 0);
        assert_eq!(again.data(HERE, &[1, 10], &records).rates, [options(100), UNKNOWN]);
    });
}

#[test]
fn quirk_37_flows_metered_at_egress_are_sampled_where_they_leave() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 100), (2, 200)]);
        router.bind(HERE, &[(3, 1), (4, 2)]);
        let records: [&[u8]; 5] =
            [&[7, 3, 4, 0], &[7, 3, 4, 1], &[7, 3, 5, 1], &[7, 3, 4, 255], &[7, 5, 4, 0]];
        let got = router.data(HERE, &[1, 10, 14, 61], &records);
        assert_eq!(got.rates, [options(100), options(200), UNKNOWN, options(100), UNKNOWN]);
        let got = router.data(HERE, &[1, 61, 14], &[&[7, 1, 3], &[7, 0, 3]]);
        assert_eq!(got.rates, [options(100), UNKNOWN]);
    });
}

#[test]
fn quirk_34_a_bound_sampler_s_rate_may_be_told_by_another_domain() {
    both(|mut router| {
        router.tell_samplers((2055, 256), &[(1, 100)]);
        router.bind((2055, 0), &[(3, 1)]);
        let got = router.data((2055, 0), &[1, 10], &[&[7, 3], &[7, 5]]);
        assert_eq!(got.rates, [options(100), UNKNOWN]);
    });
}

#[test]
fn an_interval_of_0_takes_back_the_rate_it_was_told_of() {
    both(|mut router| {
        router.tell_samplers(HERE, &[(1, 100), (2, 200)]);
        router.tell_samplers(HERE, &[(1, 0)]);
        assert_eq!(router.named(HERE, &[1, 2]), [UNKNOWN, options(200)]);
        let (system, interface) = (router.system(), if router.version == 9 { (2, 1) } else { (10, 1) });
        router.tell(HERE, &[interface], &[(34, 1)], &[vec![3, 9], vec![4, 8]]);
        router.tell(HERE, &[interface], &[(34, 1)], &[vec![3, 0]]);
        assert_eq!(router.data(HERE, &[1, 10], &[&[7, 3], &[7, 4]]).rates, [UNKNOWN, options(8)]);
        let spaced = |interval, space| vec![0, 0, 0, 0, interval, space];
        router.tell(HERE, &[system], &[(305, 1), (306, 1)], &[spaced(1, 9)]);
        assert_eq!(router.plain(HERE), options(10));
        router.tell(HERE, &[system], &[(305, 1), (306, 1)], &[spaced(0, 0)]);
        assert_eq!(router.plain(HERE), UNKNOWN);
        router.tell(HERE, &[system], &[(34, 1), (50, 1)], &[spaced(0, 9)]);
        assert_eq!(router.plain(HERE), options(9), "one of its fields tells a rate");
    });
}

#[test]
fn quirk_37_parts_with_different_rates_make_none() {
    // NetFlow v9's scope of line cards.
    let mut router = Router::new(9);
    let record = |card: u8, rate: u32| [&[card][..], &rate.to_be_bytes()].concat();
    router.tell(HERE, &[(3, 1)], &[(34, 4)], &[record(1, 100), record(2, 100)]);
    assert_eq!(router.plain(HERE), options(100));
    router.tell(HERE, &[(3, 1)], &[(34, 4)], &[record(2, 200)]);
    assert_eq!(router.plain(HERE), UNKNOWN);
    // A system is one whatever its scope's value is.
    router.tell_system(HERE, 300);
    router.tell(HERE, &[(1, 1)], &[(34, 4)], &[record(9, 400)]);
    assert_eq!(router.plain(HERE), UNKNOWN, "the line cards have theirs still");
    let state = router.decoder.state(&router.key(HERE)).unwrap();
    assert_eq!(state.rates.values().copied().max(), Some(400));
    assert_eq!(state.rates.len(), 3);
}

#[test]
fn a_set_is_given_in_stretches_of_one_rate_whatever_its_layout() {
    let mut router = Router::new(10);
    router.tell_samplers(HERE, &[(1, 10), (2, 20), (3, 10)]);
    let template = [256_u16, 2, 82, 65_535, 48, 1].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let records =
        [&[1, b'a', 1][..], &[2, b'b', b'b', 3], &[1, b'c', 2], &[3, b'd', b'd', b'd', 2], &[1, b'e', 1]];
    let got = router.send(HERE, &[set(2, &template), set(256, &records.concat())]);
    assert_eq!(got.rates, [10, 10, 20, 20, 10].map(options));
    assert_eq!((got.calls, &got.first[..]), (3, &b"abcde"[..]));
}

#[test]
fn quirk_34_another_domain_of_the_port_tells_the_rate() {
    both(|mut router| {
        let (told, data) = ((2055, 256), (2055, 0));
        assert_eq!(router.plain(data), UNKNOWN);
        router.tell_samplers(told, &[(1, 1_000)]);
        assert_eq!(router.plain(data), options(1_000));
        assert_eq!(router.named(data, &[1, 2]), [options(1_000), UNKNOWN]);
        router.tell_samplers((2055, 257), &[(1, 500)]);
        assert_eq!(router.plain(data), UNKNOWN, "two tell different rates");
        assert_eq!(router.named(data, &[1]), [UNKNOWN]);
        router.tell_samplers((2055, 257), &[(1, 1_000)]);
        assert_eq!(router.named(data, &[1]), [options(1_000)], "and agree again");
        router.tell_system(data, 5);
        assert_eq!(router.plain(data), options(5), "its own is right before all");
    });
}

#[test]
fn quirk_35_another_port_tells_the_rate() {
    both(|mut router| {
        router.tell_system((50_000, 0), 1_000);
        assert_eq!(router.plain((50_001, 0)), options(1_000));
        router.tell_system((50_001, 7), 200);
        assert_eq!(router.plain((50_001, 0)), options(200), "its own port comes first");
        assert_eq!(router.plain((50_002, 0)), UNKNOWN, "the others tell different rates");
    });
}

#[test]
fn quirk_35_no_other_port_tells_the_rate_on_this_host_or_of_another_protocol() {
    both(|mut router| {
        router.address = [127, 0, 0, 1].into();
        router.tell_system((50_000, 0), 1_000);
        router.tell(HERE, &[router.system()], &[(160, 8)], &[]);
        assert_eq!(router.plain((50_001, 0)), UNKNOWN);
        assert_eq!(router.plain((50_000, 1)), options(1_000), "its own port does");
        router.address = [192, 0, 2, 1].into();
        router.tell_system((50_000, 0), 1_000);
        router.version = 19 - router.version;
        assert_eq!(router.plain((50_000, 0)), UNKNOWN);
    });
}

#[test]
fn quirk_39_domains_of_one_port_have_their_own_rates() {
    both(|mut router| {
        for domain in 1..=8 {
            router.tell_system((2055, domain), 100 * domain);
        }
        for domain in 1..=8 {
            assert_eq!(router.plain((2055, domain)), options(100 * domain));
        }
        assert_eq!(router.plain((2055, 9)), UNKNOWN);
    });
}

#[test]
fn quirk_21_the_start_is_told_in_options() {
    both(|mut router| {
        let boots = |router: &mut Router, from| router.data(from, &[1], &[&[7]]).boots[0];
        let before = boots(&mut router, HERE);
        let expected = if router.version == 9 { BootQuality::Header } else { BootQuality::Unknown };
        assert_eq!(before.1, expected);
        let scope = [router.system()];
        let record = |boot: u64| [&[0; 4][..], &boot.to_be_bytes()].concat();
        router.tell(HERE, &scope, &[(160, 8)], &[record(0)]);
        assert_eq!(boots(&mut router, HERE), before, "0 tells nothing");
        router.tell(HERE, &scope, &[(160, 8)], &[record(1_699_000_000_123)]);
        let exporter = |boot| (boot, BootQuality::Exporter);
        assert_eq!(boots(&mut router, HERE), exporter(1_699_000_000_123));
        assert_eq!(boots(&mut router, (2055, 9)), exporter(1_699_000_000_123), "another domain of the port");
        assert_eq!(boots(&mut router, (9, 9)), exporter(1_699_000_000_123), "another port");
        router.tell((2055, 1), &scope, &[(160, 8)], &[record(1_699_555_000_000)]);
        assert_eq!(boots(&mut router, (2055, 9)).1, expected, "two tell different times");
        assert_eq!(boots(&mut router, HERE), exporter(1_699_000_000_123));
    });
}

#[test]
fn the_operator_s_rate_is_the_last_and_that_of_the_smallest_network() {
    let rates =
        [("192.0.2.0/24", 1_000), ("192.0.2.0/31", 2_000), ("0.0.0.0/0", 3_000), ("2001:db8::/32", 4_000)];
    let rates = rates.map(|(network, rate)| NetworkRate { network: network.parse().unwrap(), rate });
    let settings = Settings { network_rates: Arc::from(rates), ..Settings::default() };
    for version in [9, 10] {
        let mut router = Router::with(version, settings.clone());
        let set = |rate| (rate, SamplingSource::Static);
        for (address, rate) in [
            ("192.0.2.1", set(2_000)),
            ("192.0.2.2", set(1_000)),
            ("198.51.100.1", set(3_000)),
            ("2001:db8:1::1", set(4_000)),
            ("2001:db9::1", UNKNOWN),
        ] {
            router.address = address.parse().unwrap();
            assert_eq!(router.plain(HERE), rate, "{address}");
        }
        router.address = "192.0.2.1".parse().unwrap();
        router.tell_samplers(HERE, &[(1, 1), (2, 5)]);
        assert_eq!(router.named(HERE, &[1, 3]), [options(1), set(2_000)], "a rate of 1 is a rate");
        assert_eq!(router.plain(HERE), set(2_000));
    }
}

#[test]
fn quirk_36_a_header_s_rate_is_right_before_the_operator_s() {
    let rates = [NetworkRate { network: "192.0.2.0/24".parse().unwrap(), rate: 9 }];
    let mut decoder = Decoder::new(Settings { network_rates: Arc::from(rates), ..Settings::default() });
    for (interval, expected) in [
        ([0x40, 0x64], (100, SamplingSource::Header)),
        ([0xc0, 0x01], (1, SamplingSource::Header)),
        ([0x40, 0], (9, SamplingSource::Static)),
    ] {
        let bytes = [&[0, 5, 0, 1][..], &[0; 18], &interval, &[1; 48]].concat();
        let exporter = Exporter { address: [192, 0, 2, 1].into(), port: 1 };
        let mut got = Got::default();
        decoder
            .datagram(&Arrival { exporter, received: 0, elapsed: 0, number: 0 }, &bytes, &mut got)
            .unwrap();
        assert_eq!(got.rates, [expected]);
    }
}

#[test]
fn what_is_restored_counts_until_it_is_told_anew() {
    both(|mut router| {
        let state = DomainState { rates: [(1, 100)].into(), boot_time: 5, ..DomainState::default() };
        let key = router.key(HERE);
        router.decoder.domains.restore_state(key, state.clone());
        assert_eq!(router.decoder.state(&key), Some(&state));
        assert_eq!(router.plain(HERE), options(100));
        assert_eq!(router.plain((2055, 1)), options(100), "for the others too");
        router.tell_system((2055, 2), 700);
        assert_eq!(router.plain((2055, 1)), options(700), "until one of them tells");
        assert_eq!(router.plain(HERE), options(100));
    });
}

#[test]
fn quirk_54_rates_held_data_has_are_those_known_when_it_is_read() {
    both(|mut router| {
        assert!(router.send(HERE, &[set(256, &[7])]).rates.is_empty());
        router.tell_system(HERE, 100);
        assert_eq!(router.data(HERE, &[1], &[&[7]]).rates, [options(100), options(100)]);
    });
}

#[test]
fn status_shows_what_was_told_and_given() {
    let mut router = Router::new(9);
    router.tell_samplers(HERE, &[(1, 10), (2, 20)]);
    router.named(HERE, &[1, 2]);
    let sender = router.decoder.senders().next().unwrap();
    let track = sender.track.unwrap();
    assert_eq!((sender.key, sender.templates, sender.rates), (router.key(HERE), 2, 2));
    assert_eq!((track.sampling_rate, track.sampling_source), options(20));
    assert!(track.names_sampler && !track.carries_rate);
    assert_eq!((track.datagrams, track.records), (2, 4));
}
