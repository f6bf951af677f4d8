//! Times of flow: absolute ones from what exporters send, and their text.
//!
//! Everything is reckoned in signed 64 or 128 bits since 1970, so that no exporter's clock can overflow it.

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_TO_UNIX_SECONDS: i128 = 2_208_988_800;

/// One turn of a 32-bit millisecond clock: 49.7 days.
const UPTIME_TURN_MS: i128 = 1 << 32;

/// Nanoseconds in a second.
const SECOND_NS: i128 = 1_000_000_000;

/// The last instant that RFC 3339 can name, 9999-12-31T23:59:59.999999999Z, in nanoseconds since 1970.
const LAST_NS: i128 = 253_402_300_800 * SECOND_NS - 1;

/// The first one, 0000-01-01T00:00:00Z.
const FIRST_NS: i128 = -62_167_219_200 * SECOND_NS;

/// 2025-01-01T00:00:00Z in milliseconds since 1970: this program is younger.
const PROGRAM_EPOCH_MS: u64 = 1_735_689_600_000;

/// A time of this program's own can be right: small computers come up without a clock, in 1970 or at the time of their
/// last image, and are set by the network minutes later.
pub fn is_of_a_set_clock(unix_ms: u64) -> bool {
    unix_ms >= PROGRAM_EPOCH_MS
}

/// When an uptime was, in milliseconds since 1970.
///
/// `boot` is when the exporter started, `uptime` what its clock of 32 bits showed, in milliseconds (elements 21
/// and 22), and `near` a time that is less than 24 days away: the export time. The clock starts anew after 49.7
/// days, and exporters send flow times slightly later than the header's own uptime; so the turn is the one that
/// brings the result nearest to `near`.
pub fn from_uptime(boot: u64, uptime: u32, near: u64) -> i128 {
    let at = i128::from(boot) + i128::from(uptime);
    let away = i128::from(near) - at;
    at + (away + UPTIME_TURN_MS / 2).div_euclid(UPTIME_TURN_MS) * UPTIME_TURN_MS
}

/// The difference of two uptimes, in milliseconds: by way of the clock's turn if that is shorter.
pub fn uptime_difference(later: u32, earlier: u32) -> i32 {
    later.wrapping_sub(earlier) as i32
}

/// Nanoseconds since 1970 of a time in NTP's format (RFC 7011 section 6.1.10, RFC 5905 section 6): 32 bits of
/// seconds since 1900 and 32 of a fraction.
pub fn from_ntp(ntp: u64) -> i128 {
    ntp_seconds(ntp) * SECOND_NS + ntp_fraction(ntp, SECOND_NS)
}

/// Microseconds since 1970 of a time in NTP's format whose last 11 bits say nothing (RFC 7011 section 6.1.9).
pub fn from_ntp_micros(ntp: u64) -> i128 {
    ntp_seconds(ntp) * 1_000_000 + ntp_fraction(ntp & !0x7ff, 1_000_000)
}

/// Whole seconds since 1970. They start anew in 2036; from 1968 on the first bit tells before from after. All zero
/// stays 1900, since exporters mean unknown by it and not that moment of 2036.
fn ntp_seconds(ntp: u64) -> i128 {
    let turn = if ntp != 0 && ntp >> 63 == 0 { 1 << 32 } else { 0 };
    i128::from(ntp >> 32) + turn - NTP_TO_UNIX_SECONDS
}

/// The fraction in parts of a second. Exporters cut it off; to round gives back the digits that they meant.
fn ntp_fraction(ntp: u64, parts: i128) -> i128 {
    (i128::from(ntp as u32) * parts + (1 << 31)) >> 32
}

/// Appends a time in RFC 3339 in UTC, with `digits` (1 to 9) of a second's fraction. What has no name in it (before the year
/// 0, after 9999) becomes the first or last that has.
pub fn write_rfc3339(out: &mut Vec<u8>, unix_ns: i128, digits: u32) {
    let ns = unix_ns.clamp(FIRST_NS, LAST_NS);
    let seconds = ns.div_euclid(SECOND_NS) as i64;
    let fraction = ns.rem_euclid(SECOND_NS) as u64;
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400) as u64;
    write_padded(out, year, 4);
    for (mark, part) in
        [(b'-', month), (b'-', day), (b'T', of_day / 3600), (b':', of_day / 60 % 60), (b':', of_day % 60)]
    {
        out.push(mark);
        write_padded(out, part, 2);
    }
    out.push(b'.');
    write_padded(out, fraction / 10_u64.pow(9_u32.saturating_sub(digits)), digits);
    out.push(b'Z');
}

/// Appends milliseconds since 1970 in RFC 3339, with three digits of a second's fraction.
pub fn write_rfc3339_millis(out: &mut Vec<u8>, unix_ms: u64) {
    write_rfc3339(out, i128::from(unix_ms) * 1_000_000, 3);
}

fn write_padded(out: &mut Vec<u8>, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b'0' + (number / 10_u64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a day since 1970-01-01, from year 0 on, in the Gregorian calendar.
///
/// Counted in years that begin in March, so that the leap day is the last of its year: 400 of them have 146,097
/// days, and the months from March on have 153 days in every five.
fn civil(day_since_1970: i64) -> (u64, u64, u64) {
    // 0000-03-01 is 719,468 days before 1970-01-01; 400 years more keep January of the year 0 above nothing.
    let day = (day_since_1970 + 719_468 + 146_097) as u64;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2) - 400;
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: u64 = 1_800_000_000_000;

    fn text(unix_ns: i128, digits: u32) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, unix_ns, digits);
        String::from_utf8(out).unwrap()
    }

    /// An exporter whose header says `uptime` at `NEAR`.
    fn flow_time(uptime: u32, flow_uptime: u32) -> i128 {
        from_uptime(NEAR - u64::from(uptime), flow_uptime, NEAR) - i128::from(NEAR)
    }

    #[test]
    fn uptimes_before_and_slightly_after_the_header() {
        assert_eq!(flow_time(100_000, 90_000), -10_000);
        assert_eq!(flow_time(100_000, 100_700), 700);
        assert_eq!(flow_time(100_000, 100_000), 0);
    }

    #[test]
    fn uptimes_on_the_other_side_of_the_turn() {
        // The clock has turned since the flow.
        assert_eq!(flow_time(5_000, u32::MAX - 999), -6_000);
        // The flow's time is later than the header's, which has not turned yet.
        assert_eq!(flow_time(u32::MAX - 999, 200), 1_200);
        // The boot is known in truth, three turns ago.
        let boot = NEAR - 3 * (1 << 32) - 60_000;
        assert_eq!(from_uptime(boot, 50_000, NEAR), i128::from(NEAR) - 10_000);
        assert_eq!(uptime_difference(5, u32::MAX), 6);
        assert_eq!(uptime_difference(u32::MAX, 5), -6);
    }

    #[test]
    fn no_clock_overflows() {
        for boot in [0, u64::MAX] {
            for near in [0, u64::MAX] {
                let at = from_uptime(boot, u32::MAX, near);
                assert!((at - i128::from(near)).abs() <= 1 << 31);
            }
        }
    }

    #[test]
    fn ntp_times() {
        // 2021-01-01T00:00:00.5Z
        let half = (3_818_448_000 << 32) | 0x8000_0000;
        assert_eq!(from_ntp(half), 1_609_459_200_500_000_000);
        assert_eq!(from_ntp_micros(half | 0x7ff), 1_609_459_200_500_000);
        // 123456 microseconds, cut off by the exporter.
        let cut = (3_818_448_000 << 32) | ((123_456_u64 << 32) / 1_000_000);
        assert_eq!(from_ntp_micros(cut), 1_609_459_200_123_456);
        // A fraction that rounds up to the next second.
        assert_eq!(from_ntp(half | 0xffff_ffff), 1_609_459_201_000_000_000);
        assert_eq!(text(from_ntp(0), 6), "1900-01-01T00:00:00.000000Z");
        assert_eq!(text(from_ntp(1 << 32), 9), "2036-02-07T06:28:17.000000000Z");
        assert_eq!(text(from_ntp(1 << 63), 9), "1968-01-20T03:14:08.000000000Z");
        assert_eq!(text(from_ntp_micros(1 << 32) * 1000, 6), "2036-02-07T06:28:17.000000Z");
    }

    #[test]
    fn rfc_3339() {
        assert_eq!(text(0, 3), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(-1, 9), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(text(951_782_399_123_456_789, 6), "2000-02-28T23:59:59.123456Z");
        assert_eq!(text(951_782_400_000_000_000, 3), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(4_107_542_400_000_000_000, 3), "2100-03-01T00:00:00.000Z");
        assert_eq!(text(i128::MAX, 9), "9999-12-31T23:59:59.999999999Z");
        assert_eq!(text(i128::MIN, 3), "0000-01-01T00:00:00.000Z");
        let mut out = Vec::new();
        write_rfc3339_millis(&mut out, u64::MAX);
        assert_eq!(out, b"9999-12-31T23:59:59.999Z");
    }

    /// Against jiff, which the rest of the crate uses for times.
    #[test]
    fn rfc_3339_as_jiff_has_it() {
        for step in -2000..7000_i64 {
            let ms = step * 30_000_001_001;
            let jiff = jiff::Timestamp::from_millisecond(ms).unwrap();
            assert_eq!(text(i128::from(ms) * 1_000_000, 3), format!("{jiff:.3}"));
        }
    }
}
