//! What real exporters send, case by case: times, rates and counters. The numbers are those of the list of reported cases
//! that this project keeps; each test says what was reported.

use super::*;

/// A record of NetFlow v9 exported at `EXPORT`, taken 1.234 s later.
fn record(columns: Vec<proto::Column>, run_columns: Vec<proto::Column>) -> Value {
    let mut made = group(columns);
    made.run_columns.extend(run_columns);
    line(made)
}

fn start_and_end(line: &Value) -> [&Value; 3] {
    ["flowStartMilliseconds", "flowEndMilliseconds", "timeQuality"].map(|key| &line[key])
}

fn header_boot(uptime: u64) -> Vec<proto::Column> {
    boot(EXPORT - uptime, BootQuality::Header)
}

#[test]
fn quirk_18_flow_times_across_the_turn_of_uptime_are_not_weeks_away() {
    // The exporter's clock turned three seconds before it sent.
    let line = record(uptimes(u32::MAX - 6_999, 1_000), header_boot(3_000));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 10_000), &json!(EXPORT - 2_000), &json!("header")]);
}

#[test]
fn quirk_19_a_flow_that_ends_slightly_after_its_header() {
    let line = record(uptimes(99_000, 100_250), header_boot(100_000));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 1_000), &json!(EXPORT + 250), &json!("header")]);
}

#[test]
fn quirk_20_uptimes_in_eight_bytes() {
    let columns = vec![same(22, &90_000_u64.to_be_bytes()), same(21, &95_000_u64.to_be_bytes())];
    let line = record(columns, header_boot(100_000));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 10_000), &json!(EXPORT - 5_000), &json!("header")]);
    // A clock of 64 bits that does not turn, up for 60 days.
    let up = 60 * 86_400_000_u64;
    let columns = vec![same(22, &(up - 5_000).to_be_bytes()), same(21, &up.to_be_bytes())];
    let line = record(columns, boot(EXPORT - up, BootQuality::Exporter));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 5_000), &json!(EXPORT), &json!("exporter")]);
}

#[test]
fn quirk_21_relative_times_with_the_start_of_the_exporter_from_an_options_record() {
    let line = record(uptimes(50_000, 60_000), boot(EXPORT - 61_000, BootQuality::Exporter));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 11_000), &json!(EXPORT - 1_000), &json!("exporter")]);
}

#[test]
fn quirk_22_the_start_of_the_exporter_in_the_data_record() {
    let columns = [uptimes(1_000, 2_000), vec![same(160, &(EXPORT - 5_000).to_be_bytes())]].concat();
    let line = record(columns, header_boot(100_000));
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 4_000), &json!(EXPORT - 3_000), &json!("exporter")]);
}

#[test]
fn quirk_23_relative_times_and_no_start_of_the_exporter_ever() {
    let line = record(uptimes(90_000, 95_000), vec![]);
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 5_000), &json!(EXPORT), &json!("export")]);
    // A start of 0 is none.
    let columns = [uptimes(90_000, 95_000), vec![same(160, &[0; 8])]].concat();
    assert_eq!(record(columns, vec![])["timeQuality"], "export");
}

#[test]
fn quirk_24_times_in_seconds_one_of_them_at_times() {
    let seconds = (EXPORT / 1000) as u32;
    let both = vec![same(150, &(seconds - 9).to_be_bytes()), same(151, &seconds.to_be_bytes())];
    assert_eq!(start_and_end(&record(both, vec![])), [&json!(EXPORT - 9_000), &json!(EXPORT), &Value::Null]);
    let end = record(vec![same(151, &seconds.to_be_bytes())], vec![]);
    assert_eq!(start_and_end(&end), [&Value::Null, &json!(EXPORT), &Value::Null]);
}

#[test]
fn quirk_25_times_in_the_format_of_ntp() {
    // 0.123456 s and 0.123456789 s, both cut off as exporters do.
    let seconds = (EXPORT / 1000 + 2_208_988_800) << 32;
    let micros = seconds | ((123_456_u64 << 32) / 1_000_000);
    let nanos = seconds | ((123_456_789_u64 << 32) / 1_000_000_000);
    for (start, end, value) in [(154, 155, micros), (156, 157, nanos)] {
        let columns = vec![same(start, &value.to_be_bytes()), same(end, &value.to_be_bytes())];
        assert_eq!(record(columns, vec![])["flowStartMilliseconds"], EXPORT + 123);
    }
    let line = record(vec![same(154, &micros.to_be_bytes()), same(157, &nanos.to_be_bytes())], vec![]);
    assert_eq!(line["flowStartMicroseconds"], "2026-09-21T14:13:20.123456Z");
    assert_eq!(line["flowEndNanoseconds"], "2026-09-21T14:13:20.123456789Z");
}

#[test]
fn quirk_26_milliseconds_and_seconds_are_not_mixed() {
    let columns = vec![
        same(150, &((EXPORT / 1000) as u32).to_be_bytes()),
        same(153, &(EXPORT + 1).to_be_bytes()),
        same(22, &90_000_u32.to_be_bytes()),
    ];
    let line = record(columns, header_boot(100_000));
    assert_eq!(line["flowStartSeconds"], EXPORT);
    assert_eq!(start_and_end(&line), [&json!(EXPORT), &json!(EXPORT + 1), &Value::Null]);
}

#[test]
fn quirk_27_no_time_is_invented_for_events_without_one() {
    let line = record(vec![same(233, &[2]), same(323, &[0; 8])], vec![]);
    assert_eq!(start_and_end(&line), [&Value::Null; 3]);
    assert_eq!(line["observationTimeMilliseconds"], 0);
}

#[test]
fn quirk_28_the_receive_time_stays_beside_an_exporters_wrong_clock() {
    let mut made = group(uptimes(90_000, 95_000));
    // Its clock is in 2000.
    let wrong = 946_684_800_000_u64;
    made.run_columns[5] = run(RunField::ExportTime, wrong);
    made.run_columns.extend(boot(wrong - 100_000, BootQuality::Header));
    let line = line(made);
    assert_eq!(line["flowEndMilliseconds"], wrong - 5_000);
    assert_eq!(
        (&line["exportedAt"], &line["receivedAt"]),
        (&json!("2000-01-01T00:00:00.000Z"), &json!("2026-09-21T14:13:21.234Z"))
    );
}

#[test]
fn quirk_28_a_proxy_whose_own_clock_is_not_set_says_so_and_derives_nothing_from_it() {
    let at_boot = |export: u64, columns: Vec<proto::Column>| {
        let mut made = group(columns);
        made.run_columns[5] = run(RunField::ExportTime, export);
        made.run_columns[6] = run(RunField::ReceiveTime, 86_400_000);
        line(made)
    };
    let line = at_boot(EXPORT, uptimes(90_000, 95_000));
    assert_eq!(line["receivedAtQuality"], "clockNotSet");
    assert_eq!(start_and_end(&line), [&json!(EXPORT - 5_000), &json!(EXPORT), &json!("export")]);
    let line = at_boot(0, uptimes(90_000, 95_000));
    assert_eq!(start_and_end(&line), [&Value::Null; 3]);
    // Absolute times need neither clock.
    let line = at_boot(0, vec![same(152, &EXPORT.to_be_bytes())]);
    assert_eq!(line["flowStartMilliseconds"], EXPORT);
    assert_eq!(record(vec![], vec![]).get("receivedAtQuality"), None);
}

#[test]
fn quirk_30_rates_as_interval_and_space() {
    let line = record(vec![same(305, &[1]), same(306, &[3, 231])], vec![]);
    assert_eq!((&line["samplingRate"], &line["samplingSource"]), (&json!(1000), &json!("record")));
    // Two of every five.
    let line = record(vec![same(305, &[2]), same(306, &[3])], vec![]);
    assert_eq!(line["samplingRate"], 2.5);
}

#[test]
fn quirk_31_and_32_the_rate_in_field_34_of_the_data_record() {
    let announced = vec![run(RunField::SamplingRate, 7), run(RunField::SamplingSource, 2)];
    let line = record(vec![same(34, &[0, 0, 3, 232])], announced.clone());
    assert_eq!((&line["samplingRate"], &line["samplingSource"]), (&json!(1000), &json!("record")));
    // 0 says nothing.
    let line = record(vec![same(34, &[0; 4])], announced);
    assert_eq!((&line["samplingRate"], &line["samplingSource"]), (&json!(7), &json!("options")));
}

#[test]
fn quirk_33_the_rate_of_a_sampler_in_the_data_record() {
    let line = record(vec![same(48, &[2]), same(49, &[2]), same(50, &[0, 0, 3, 232])], vec![]);
    assert_eq!((&line["samplingRate"], &line["samplingSource"]), (&json!(1000), &json!("record")));
    // A sampler's number alone is no rate.
    assert_eq!(record(vec![same(48, &[2])], vec![]).get("samplingRate"), None);
}

#[test]
fn quirk_35_a_rate_in_options_is_about_other_records() {
    let mut made = group(vec![same(48, &[2]), same(50, &[3, 232]), same(34, &[100])]);
    made.kind = RecordKind::Options as i32;
    let line = line(made);
    assert_eq!((line.get("samplingRate"), &line["samplerRandomInterval"]), (None, &json!(1000)));
}

#[test]
fn quirk_37_random_n_out_of_many() {
    let line = record(vec![same(309, &[1]), same(310, &[39, 16])], vec![]);
    assert_eq!((&line["samplingRate"], &line["samplingSource"]), (&json!(10_000), &json!("record")));
}

#[test]
fn quirk_40_counters_of_firewall_events_stay_under_their_names() {
    let line = record(
        vec![
            same(231, &[1, 0]),
            same(232, &[2, 0]),
            same(298, &[3]),
            same(299, &[4]),
            same(85, &[5]),
            same(86, &[6]),
            same(233, &[5]),
        ],
        vec![run(RunField::SamplingRate, 100), run(RunField::SamplingSource, 3)],
    );
    for (key, value) in [
        ("initiatorOctets", 256),
        ("responderOctets", 512),
        ("initiatorPackets", 3),
        ("responderPackets", 4),
        ("octetTotalCount", 5),
        ("packetTotalCount", 6),
        ("firewallEvent", 5),
    ] {
        assert_eq!(line[key], value, "{key}");
    }
    assert_eq!((line.get("octetDeltaCount"), line.get("packetDeltaCount")), (None, None));
}

#[test]
fn quirk_41_and_42_counters_are_neither_scaled_nor_made_up() {
    let rate = vec![run(RunField::SamplingRate, 1000), run(RunField::SamplingSource, 2)];
    let line = record(vec![same(1, &[0; 8]), same(2, &[9]), same(85, &[7])], rate);
    assert_eq!((&line["octetDeltaCount"], &line["packetDeltaCount"]), (&json!(0), &json!(9)));
    assert_eq!((&line["octetTotalCount"], &line["samplingRate"]), (&json!(7), &json!(1000)));
}

#[test]
fn quirk_43_and_44_interfaces_and_direction_stay_as_sent() {
    let line = record(vec![same(10, &[0, 7]), same(14, &[0, 7]), same(61, &[255])], vec![]);
    assert_eq!((&line["ingressInterface"], &line["egressInterface"]), (&json!(7), &json!(7)));
    assert_eq!(line["flowDirection"], 255);
    assert_eq!(line.get("forwardingStatus"), None);
}

#[test]
fn quirk_45_icmp_stays_where_the_exporter_puts_it() {
    let line = record(vec![same(4, &[1]), same(7, &[0, 0]), same(11, &[3, 1]), same(32, &[8, 0])], vec![]);
    assert_eq!((&line["destinationTransportPort"], &line["icmpTypeCodeIPv4"]), (&json!(769), &json!(2048)));
    let line = record(vec![same(4, &[58]), same(139, &[128, 0])], vec![]);
    assert_eq!(line["icmpTypeCodeIPv6"], 32_768);
    assert_eq!((line.get("icmpTypeIPv6"), line.get("destinationTransportPort")), (None, None));
}

#[test]
fn quirk_48_both_families_in_one_record_one_of_them_zero() {
    let line = record(vec![same(8, &[10, 0, 0, 1]), same(27, &[0; 16])], vec![]);
    assert_eq!((&line["sourceIPv4Address"], &line["sourceIPv6Address"]), (&json!("10.0.0.1"), &json!("::")));
}

#[test]
fn quirk_49_and_50_interface_numbers_are_not_interpreted() {
    for index in [0x3fff_ffff_u32, 0x8000_0002, 0x4000_0102, 1_610_612_737] {
        let line = record(vec![same(14, &index.to_be_bytes())], vec![]);
        assert_eq!(line["egressInterface"], index);
    }
}
