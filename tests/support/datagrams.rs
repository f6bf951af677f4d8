//! Export datagrams written by hand, field by field, from the protocols' own documents.
//!
//! None of it uses the product's code: NetFlow v5 (Cisco's format), v9 (RFC 3954), IPFIX (RFC 7011).

/// Export time of every header here: 2026-11-23 14:00:00 UTC.
pub const EXPORT_SECONDS: u32 = 1_795_442_400;
/// Uptime of the exporter at the export, in milliseconds.
pub const UPTIME_MS: u32 = 3_600_000;

/// Big-endian bytes, put together piece by piece.
#[derive(Clone, Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// A flow with what the tests look at; the rest of each record follows from it.
#[derive(Clone, Copy)]
pub struct Flow {
    pub source: [u8; 4],
    pub destination: [u8; 4],
    pub packets: u32,
    pub octets: u32,
}

impl Flow {
    /// A flow that its octets tell from all others with another number.
    pub fn numbered(number: u32) -> Self {
        let [_, b, c, d] = number.to_be_bytes();
        Flow {
            source: [198, 18 + (b & 1), c, d],
            destination: [198, 51, 100, d],
            packets: 1 + number % 9,
            octets: number,
        }
    }
}

/// NetFlow v5: a header of 24 bytes, then records of 48.
pub fn v5(sequence: u32, flows: &[Flow]) -> Vec<u8> {
    let header = Bytes::default().u16(5).u16(flows.len() as u16).u32(UPTIME_MS).u32(EXPORT_SECONDS);
    // nanoseconds, sequence, engine type 1, engine id 2, sampling mode 1 with an interval of 100
    let header = header.u32(0).u32(sequence).u8(1).u8(2).u16(0x4064);
    flows.iter().fold(header, v5_record).0
}

fn v5_record(bytes: Bytes, flow: &Flow) -> Bytes {
    let bytes = bytes.raw(&flow.source).raw(&flow.destination).raw(&[192, 0, 2, 1]);
    // input and output interface, packets, octets, first and last switched
    let bytes =
        bytes.u16(3).u16(7).u32(flow.packets).u32(flow.octets).u32(UPTIME_MS - 5_000).u32(UPTIME_MS - 1_000);
    // ports, pad, TCP flags, protocol, type of service
    let bytes = bytes.u16(443).u16(50_123).u8(0).u8(0x1b).u8(6).u8(0x10);
    // AS numbers, masks, pad
    bytes.u16(64_500).u16(64_501).u8(24).u8(16).u16(0)
}

/// A NetFlow v9 datagram with these flowsets.
pub fn v9(sequence: u32, source_id: u32, count: u16, flowsets: &[Vec<u8>]) -> Vec<u8> {
    let header =
        Bytes::default().u16(9).u16(count).u32(UPTIME_MS).u32(EXPORT_SECONDS).u32(sequence).u32(source_id);
    header.raw(&flowsets.concat()).0
}

/// An IPFIX message with these sets.
pub fn ipfix(sequence: u32, domain: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    let header =
        Bytes::default().u16(10).u16(16 + body.len() as u16).u32(EXPORT_SECONDS).u32(sequence).u32(domain);
    header.raw(&body).0
}

/// A set (v9: flowset) with its length in the header and no padding.
pub fn set(id: u16, body: &[u8]) -> Vec<u8> {
    Bytes::default().u16(id).u16(4 + body.len() as u16).raw(body).0
}

/// A template of IANA elements: id, then (element, width).
pub fn template(id: u16, fields: &[(u16, u16)]) -> Vec<u8> {
    let start = Bytes::default().u16(id).u16(fields.len() as u16);
    fields.iter().fold(start, |bytes, (element, width)| bytes.u16(*element).u16(*width)).0
}

/// The template that `v9_flows` and `ipfix_flows` use.
pub const FLOW_TEMPLATE: u16 = 256;

/// Source and destination address, ports, protocol, packets, octets, first and last switched.
const FLOW_FIELDS: [(u16, u16); 9] =
    [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (2, 4), (1, 4), (22, 4), (21, 4)];

fn flow_record(bytes: Bytes, flow: &Flow) -> Bytes {
    let bytes = bytes.raw(&flow.source).raw(&flow.destination).u16(443).u16(50_123).u8(6);
    bytes.u32(flow.packets).u32(flow.octets).u32(UPTIME_MS - 5_000).u32(UPTIME_MS - 1_000)
}

fn flow_sets(template_set: u16, flows: &[Flow]) -> [Vec<u8>; 2] {
    let records = flows.iter().fold(Bytes::default(), flow_record).0;
    [set(template_set, &template(FLOW_TEMPLATE, &FLOW_FIELDS)), set(FLOW_TEMPLATE, &records)]
}

/// A v9 datagram with the template and these flows.
pub fn v9_flows(sequence: u32, flows: &[Flow]) -> Vec<u8> {
    v9(sequence, 7, 1 + flows.len() as u16, &flow_sets(0, flows))
}

/// An IPFIX message with the template and these flows.
pub fn ipfix_flows(sequence: u32, flows: &[Flow]) -> Vec<u8> {
    ipfix(sequence, 11, &flow_sets(2, flows))
}

/// Datagrams of `flows_each` flows each that carry the flows numbered `from..to`: v5, v9 and IPFIX in turn.
pub fn numbered(from: u32, to: u32, flows_each: usize) -> Vec<Vec<u8>> {
    let flows: Vec<Flow> = (from..to).map(Flow::numbered).collect();
    let forms = [v5 as fn(u32, &[Flow]) -> Vec<u8>, v9_flows, ipfix_flows];
    let datagram = |(place, some): (usize, &[Flow])| forms[place % forms.len()](place as u32, some);
    flows.chunks(flows_each).enumerate().map(datagram).collect()
}

/// A v9 datagram of a router's fields with its template: few addresses, and to each address its own next hop, AS and
/// mask. The octets are the number of the record.
pub fn v9_router(sequence: u32, numbers: std::ops::Range<u32>) -> Vec<u8> {
    let fields =
        [(8, 4), (12, 4), (15, 4), (16, 4), (17, 4), (9, 1), (13, 1), (1, 4), (2, 4), (22, 4), (21, 4)];
    let count = numbers.len() as u16;
    let records = numbers.fold(Bytes::default(), |bytes, number| {
        let [source, destination] = router_hosts(number);
        let first = UPTIME_MS - 60_000 + number.wrapping_mul(2_654_435_761) % 50_000;
        let bytes = bytes.u32(source).u32(destination).u32(0xc000_0200 | destination >> 8 & 7);
        let bytes = bytes.u32(64_512 + source % 1_000).u32(64_512 + destination % 1_000);
        let bytes = bytes
            .u8(16 + (source % 9) as u8)
            .u8(16 + (destination % 9) as u8)
            .u32(number)
            .u32(1 + number % 5);
        bytes.u32(first).u32(first + number % 200)
    });
    v9(sequence, 8, 1 + count, &[set(0, &template(257, &fields)), set(257, &records.0)])
}

/// Source and destination of a router's record: few, and nothing alike.
pub fn router_hosts(number: u32) -> [u32; 2] {
    [number.wrapping_mul(7) % 61, number.wrapping_mul(13) % 47]
        .map(|host| (host + 1).wrapping_mul(0x9e37_79b1))
}
