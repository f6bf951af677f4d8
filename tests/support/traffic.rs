//! Random export traffic, seeded: templates of every form that a protocol has, records of them, and the datagrams that
//! our own encoder makes of these.

use flowproxy::flow::Field;
use flowproxy::generator::encoder::{Datagram, Packer, Settings, Template, Value, Version};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// A record's values, in the order of its template.
pub type Values = Vec<Vec<u8>>;

/// Traffic of one exporter.
pub struct Traffic {
    /// Scope fields and all fields of each template.
    pub templates: BTreeMap<u16, (usize, Vec<Field>)>,
    /// Flow records in their order.
    pub records: BTreeMap<u16, Vec<Values>>,
    /// Options records, which come again whenever the templates do.
    pub options: BTreeMap<u16, Vec<Values>>,
    pub datagrams: Vec<Vec<u8>>,
}

const NOW: u64 = 1_795_442_400_789;

/// Of enterprise fields: reverse ones (RFC 5103), Cisco's, Netscaler's, one nobody has.
pub const ENTERPRISES: [u32; 4] = [29_305, 9, 5_951, 3_999_999];

/// `may_send` says which fields occur, `least` how many bytes a value of variable length has at least.
pub fn traffic(seed: u64, version: Version, least: usize, may_send: impl Fn(Field) -> bool) -> Traffic {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut templates = BTreeMap::new();
    for id in 256..256 + rng.random_range(1..6) {
        let scopes = if rng.random_bool(0.3) { rng.random_range(1..3) } else { 0 };
        templates.insert(id, (scopes, fields(&mut rng, version, scopes, &may_send)));
    }
    // Flows there must be, or nothing is sent.
    templates.entry(256).and_modify(|template| template.0 = 0);
    let settings = Settings {
        version,
        domain: rng.random_range(0..3),
        booted: NOW - 1_000_000,
        max_bytes: rng.random_range(1_000..1_500),
        max_delay: Duration::from_secs(1),
        template_interval: Duration::from_secs(20),
        template_datagrams: 10,
    };
    let of = |(id, (scopes, fields)): (&u16, &(usize, Vec<Field>))| {
        fields.iter().enumerate().fold(Template::new(*id), |template, (place, field)| {
            if place < *scopes { template.scope_of(*field) } else { template.field_of(*field) }
        })
    };
    let mut packer = Packer::new(settings, templates.iter().map(of).collect()).expect("templates");
    let mut traffic =
        Traffic { templates, records: BTreeMap::new(), options: BTreeMap::new(), datagrams: Vec::new() };
    send(&mut rng, &mut packer, least, &mut traffic);
    traffic
}

fn given(values: &[Vec<u8>]) -> Vec<Value<'_>> {
    values.iter().map(|value| Value::Bytes(value)).collect()
}

fn send(rng: &mut StdRng, packer: &mut Packer, least: usize, traffic: &mut Traffic) {
    let Traffic { templates, records, options, datagrams } = traffic;
    for (id, (_, fields)) in templates.iter().filter(|(_, template)| template.0 > 0) {
        for _ in 0..rng.random_range(0..4) {
            let values = values(rng, fields, least);
            packer.announce(*id, &given(&values)).expect("options");
            options.entry(*id).or_default().push(values);
        }
    }
    let flows: Vec<(&u16, &Vec<Field>)> = templates
        .iter()
        .filter(|(_, template)| template.0 == 0)
        .map(|(id, (_, fields))| (id, fields))
        .collect();
    let mut now = NOW;
    let mut out = |datagram: Datagram<'_>| datagrams.push(datagram.bytes.to_vec());
    for _ in 0..rng.random_range(1..200) {
        let (id, fields) = flows[rng.random_range(0..flows.len())];
        let values = values(rng, fields, least);
        now += rng.random_range(0..300);
        packer.record(*id, &given(&values), now, &mut out).expect("a record");
        packer.poll(now, &mut out);
        records.entry(*id).or_default().push(values);
    }
    packer.flush(now, &mut out);
}

/// Fixed and variable, of enterprises, of any width, some more than once.
fn fields(
    rng: &mut StdRng,
    version: Version,
    scopes: usize,
    may_send: &impl Fn(Field) -> bool,
) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    let count = rng.random_range(1..24) + scopes;
    while fields.len() < count {
        if let (Some(last), true) = (fields.last(), rng.random_bool(0.1)) {
            fields.push(*last);
            continue;
        }
        let ipfix = version == Version::Ipfix;
        let is_scope = fields.len() < scopes;
        let field = Field {
            enterprise: if ipfix && rng.random_bool(0.2) {
                ENTERPRISES[rng.random_range(0..4usize)]
            } else {
                0
            },
            element: if is_scope && !ipfix { rng.random_range(1..6) } else { rng.random_range(1..480) },
            width: match rng.random_range(0..10) {
                0 if ipfix => Field::VARIABLE,
                1 => rng.random_range(0..40),
                2..5 => rng.random_range(1..9),
                _ => [1, 2, 4, 8, 16][rng.random_range(0..5usize)],
            },
        };
        if may_send(field) {
            fields.push(field);
        }
    }
    // A record that padding could be taken for cannot be sent by v9.
    fields.push(Field { enterprise: 0, element: 8, width: 4 });
    fields
}

fn values(rng: &mut StdRng, fields: &[Field], least: usize) -> Values {
    let value = |field: &Field| {
        let length = match field.width {
            Field::VARIABLE => match rng.random_range(0..20) {
                0 => rng.random_range(250..300),
                _ => rng.random_range(least..12),
            },
            width => usize::from(width),
        };
        let mut value = vec![0; length];
        if rng.random_bool(0.8) {
            rng.fill(&mut value[..]);
        }
        value
    };
    fields.iter().map(value).collect()
}
