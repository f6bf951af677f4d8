//! Why of a sender nothing arrives, or not what one expects: one sentence from the facts.
//!
//! The causes stand in the order in which they are told: the first that holds is the sentence.

use super::admission::Limits;
use super::facts::{Facts, Speaks};
use crate::flow::record::protocol_name;
use crate::flow::time;
use crate::proto::Protocol;
use crate::wire::Fault;
use std::fmt;

/// How long a limit that was met is told.
const LIMITED_MS: u64 = 60_000;
/// How long a fault that was met is told.
const FAULTY_MS: u64 = 600_000;
/// Data that has waited no longer than this may yet be read by a template of another port, which is tried after five
/// seconds, once a second.
const ON_ITS_WAY_MS: u64 = 7_000;
/// Without a datagram for so long a sender is silent: exporters send something every few minutes.
const SILENT_MS: u64 = 600_000;
/// A clock that is further from ours than this is wrong: v9 and IPFIX tell whole seconds, networks delay some more.
const SKEWED_MS: u64 = 60_000;
/// A clock that is further behind was never set.
const UNSET_MS: i64 = -20 * 365 * DAY_MS as i64;
/// So many numbers of a sequence must be missing, and so many of a thousand.
const LOSSY: (u64, u64) = (10, 10);
/// So many datagrams before their sequence is said to stand still.
const STANDS_STILL: u64 = 10;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// What faults a set has for want of its template.
const WANT: [Fault; 2] = [Fault::NoTemplate, Fault::HoldFull];

/// How much a cause matters; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Flow is lost, or held.
    Wrong,
    /// Flow arrives, or may not be there yet; something about it is not as it should be.
    Odd,
    /// All is well.
    Well,
    /// It sends no more, and its address sends from elsewhere.
    Gone,
}

impl Weight {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Weight::Wrong => "wrong",
            Weight::Odd => "odd",
            Weight::Well => "well",
            Weight::Gone => "gone",
        }
    }
}

/// The cause. Times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its address is in none of the networks of `listen.allow`.
    Refused,
    /// Its address sends more than is taken.
    Limited {
        /// Of what is taken how much.
        limits: Limits,
        /// Datagrams that were not.
        datagrams: u64,
    },
    /// Nothing that it sends is of a protocol known.
    Unreadable {
        /// Why not.
        fault: Fault,
        /// What stands where the version would.
        version: u16,
    },
    /// It sends nothing any more.
    Silent {
        /// When it was last heard.
        last: u64,
        /// How long ago that was.
        ago_ms: u64,
    },
    /// It sends nothing any more, but its address does from another port or domain.
    Gone {
        /// When it was last heard.
        last: u64,
    },
    /// Its connection is closed.
    Closed {
        /// When that was.
        at: u64,
        /// How long ago that was.
        ago_ms: u64,
        /// Its address goes on from another port or domain.
        elsewhere: bool,
    },
    /// Its templates were kept from before our start; it has not been heard since.
    NotYetHeard {
        /// Its address has been, from another port or domain.
        elsewhere: bool,
    },
    /// Some of it could not be read, lately.
    Faulty {
        /// Why not, last.
        fault: Fault,
        /// How often.
        times: u64,
        /// When last.
        last: u64,
        /// Nothing else of it was read either.
        nothing: bool,
    },
    /// Data waits for its template.
    Awaited {
        /// The template waited for; the one for which most is held.
        template: u16,
        /// How many others there are.
        others: usize,
        /// Sets held.
        sets: usize,
        /// Since when.
        since: u64,
        /// Sets that were given up.
        given_up: u64,
        /// The template was known, and had to make room for others.
        was_known: bool,
    },
    /// It has told templates and sent no data for them.
    TemplatesOnly,
    /// It has sent options records and no flow.
    OptionsOnly,
    /// There is nothing in what it sends.
    Nothing,
    /// It names a sampler and has not told its rate.
    NoRate,
    /// Its sequence number is always the same.
    StandsStill {
        /// By this protocol.
        protocol: Protocol,
        /// Which one.
        number: u32,
    },
    /// Its clock is not ours.
    Skewed {
        /// How far it is ahead.
        ahead_ms: i64,
        /// What it shows.
        shows: u64,
    },
    /// Some of what it sends does not come here.
    Lossy {
        /// How much.
        missing: u64,
        /// Of how many.
        of: u64,
        /// Of what.
        unit: &'static str,
    },
    /// Its templates are those of another port of its address.
    Provisional,
    /// Its templates are those that were kept from before our start.
    Restored,
    /// It is forwarded unread.
    Raw,
    /// All is well.
    Well,
}

impl Cause {
    /// The first that holds at `now`.
    pub fn of(facts: &Facts, now: u64) -> Cause {
        Cause::all(facts, now).next().unwrap_or(Cause::Well)
    }

    /// All that hold at `now`, the one that matters most first.
    pub fn all(facts: &Facts, now: u64) -> impl Iterator<Item = Cause> + '_ {
        const RULES: [fn(&Facts, u64) -> Option<Cause>; 12] = [
            refused,
            limited,
            unreadable,
            closed,
            silent,
            faulty,
            awaited,
            empty,
            sampling,
            skewed,
            lossy,
            template_source,
        ];
        let well = if facts.speaks == Speaks::Raw { Cause::Raw } else { Cause::Well };
        let mut found = RULES.iter().filter_map(move |rule| rule(facts, now)).peekable();
        let is_well = found.peek().is_none();
        found.chain(is_well.then_some(well))
    }

    /// A word for it, for programs. Numbers in the sentence change; while this does not the state is the same.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Refused => "refused",
            Cause::Limited { .. } => "limited",
            Cause::Unreadable { .. } => "unreadable",
            Cause::Silent { .. } => "silent",
            Cause::Gone { .. } => "gone",
            Cause::Closed { .. } => "closed",
            Cause::NotYetHeard { .. } => "not_yet_heard",
            Cause::Faulty { .. } => "faulty",
            Cause::Awaited { was_known: true, .. } => "template_given_up",
            Cause::Awaited { .. } => "template_awaited",
            Cause::TemplatesOnly => "templates_only",
            Cause::OptionsOnly => "options_only",
            Cause::Nothing => "nothing",
            Cause::NoRate => "no_rate",
            Cause::StandsStill { .. } => "sequence_stands_still",
            Cause::Skewed { .. } => "clock_skewed",
            Cause::Lossy { .. } => "lossy",
            Cause::Provisional => "provisional_templates",
            Cause::Restored => "restored_templates",
            Cause::Raw => "raw",
            Cause::Well => "ok",
        }
    }

    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Cause::Refused
            | Cause::Limited { .. }
            | Cause::Unreadable { .. }
            | Cause::Silent { .. }
            | Cause::Faulty { .. }
            | Cause::Awaited { .. }
            | Cause::Closed { elsewhere: false, ago_ms: SILENT_MS.., .. } => Weight::Wrong,
            Cause::Raw | Cause::Well => Weight::Well,
            Cause::Gone { .. }
            | Cause::Closed { elsewhere: true, .. }
            | Cause::NotYetHeard { elsewhere: true } => Weight::Gone,
            _ => Weight::Odd,
        }
    }
}

fn refused(facts: &Facts, _now: u64) -> Option<Cause> {
    (facts.speaks == Speaks::Refused).then_some(Cause::Refused)
}

fn limited(facts: &Facts, now: u64) -> Option<Cause> {
    let limited = facts.limited;
    let is_recent = limited.datagrams > 0 && now.saturating_sub(limited.last) < LIMITED_MS;
    is_recent.then_some(Cause::Limited { limits: limited.limits, datagrams: limited.datagrams })
}

fn unreadable(facts: &Facts, _now: u64) -> Option<Cause> {
    let last = facts.faults.iter().max_by_key(|met| met.last).filter(|_| facts.speaks == Speaks::Unknown)?;
    Some(Cause::Unreadable { fault: last.fault, version: facts.version })
}

fn closed(facts: &Facts, now: u64) -> Option<Cause> {
    let (at, ago_ms) = (facts.closed, now.saturating_sub(facts.closed));
    let elsewhere = facts.address_last_seen > at && now.saturating_sub(facts.address_last_seen) < SILENT_MS;
    (at > 0).then_some(Cause::Closed { at, ago_ms, elsewhere })
}

fn silent(facts: &Facts, now: u64) -> Option<Cause> {
    let last = facts.last_seen;
    if facts.closed > 0 {
        return None;
    }
    if last == 0 {
        return Some(Cause::NotYetHeard { elsewhere: facts.address_last_seen > 0 });
    }
    let ago_ms = now.saturating_sub(last);
    match now.saturating_sub(facts.address_last_seen) {
        _ if ago_ms < SILENT_MS => None,
        SILENT_MS.. => Some(Cause::Silent { last, ago_ms }),
        _ => Some(Cause::Gone { last }),
    }
}

fn faulty(facts: &Facts, now: u64) -> Option<Cause> {
    // While data still waits that is told, with what was given up.
    let counts = |fault: Fault| facts.awaited.is_empty() || !WANT.contains(&fault);
    let recent = |last: u64| now.saturating_sub(last) < FAULTY_MS;
    let met = facts.faults.iter().filter(|met| counts(met.fault) && recent(met.last));
    let last = met.max_by_key(|met| met.last)?;
    let nothing = facts.records + facts.options == 0;
    Some(Cause::Faulty { fault: last.fault, times: last.times, last: last.last, nothing })
}

fn awaited(facts: &Facts, now: u64) -> Option<Cause> {
    let most = facts.awaited.iter().max_by_key(|awaited| awaited.sets)?;
    // What is read by a template of another port waits a little for one of its own, each time.
    let is_on_its_way =
        facts.provisional > 0 && facts.awaited.iter().all(|it| now.saturating_sub(it.since) < ON_ITS_WAY_MS);
    if is_on_its_way {
        return None;
    }
    Some(Cause::Awaited {
        template: most.template,
        others: facts.awaited.len() - 1,
        sets: facts.held(),
        since: facts.awaited.iter().map(|awaited| awaited.since).min().unwrap_or(most.since),
        given_up: facts.times(&WANT),
        was_known: most.given_up,
    })
}

fn empty(facts: &Facts, _now: u64) -> Option<Cause> {
    let is_flow = matches!(facts.speaks, Speaks::Flow(_));
    let is_known = is_flow && facts.last_seen > 0 && facts.awaited.is_empty();
    match (facts.records, facts.options, facts.templates) {
        _ if !is_known => None,
        (0, 0, 0) => Some(Cause::Nothing),
        (0, 0, _) => Some(Cause::TemplatesOnly),
        (0, ..) => Some(Cause::OptionsOnly),
        _ => None,
    }
}

fn sampling(facts: &Facts, _now: u64) -> Option<Cause> {
    (facts.names_sampler && facts.sampling_rate == 0 && facts.records > 0).then_some(Cause::NoRate)
}

fn skewed(facts: &Facts, _now: u64) -> Option<Cause> {
    let shows = facts.last_seen.saturating_add_signed(facts.skew_ms);
    (facts.skew_ms.unsigned_abs() >= SKEWED_MS).then_some(Cause::Skewed { ahead_ms: facts.skew_ms, shows })
}

fn lossy(facts: &Facts, _now: u64) -> Option<Cause> {
    let (Speaks::Flow(protocol), sequence) = (facts.speaks, facts.sequence) else { return None };
    if sequence.stands_still {
        return (facts.datagrams >= STANDS_STILL)
            .then_some(Cause::StandsStill { protocol, number: sequence.last });
    }
    // What we did not take is missing in the numbers, too.
    if facts.limited.datagrams > 0 {
        return None;
    }
    let came = match sequence.unit {
        "datagrams" => facts.datagrams,
        _ => facts.records + facts.options,
    };
    let (missing, of) = (sequence.missing, sequence.missing + came);
    let is_lossy = missing >= LOSSY.0 && missing.saturating_mul(1_000) >= of.saturating_mul(LOSSY.1);
    is_lossy.then_some(Cause::Lossy { missing, of, unit: sequence.unit })
}

fn template_source(facts: &Facts, _now: u64) -> Option<Cause> {
    match facts.records + facts.options {
        0 => None,
        _ if facts.templates == 0 && facts.provisional > 0 => Some(Cause::Provisional),
        _ if facts.restored > 0 => Some(Cause::Restored),
        _ => None,
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Cause::Refused => f.write_str("refused by listen.allow"),
            Cause::Limited { limits, datagrams } => {
                write!(f, "limited to {limits}, {datagrams} datagrams not taken")
            }
            // Only connections, which carry IPFIX alone, do not know these.
            Cause::Unreadable { fault: Fault::UnknownVersion, version: version @ (1 | 5 | 7 | 9) } => {
                write!(
                    f,
                    "unreadable: NetFlow v{version} is not taken over TCP, send it by UDP or send IPFIX"
                )
            }
            Cause::Unreadable { fault: Fault::UnknownVersion, version } => {
                write!(f, "unreadable: version {version} is of no protocol known")
            }
            Cause::Unreadable { fault, .. } => write!(f, "unreadable: {fault}"),
            Cause::Silent { last, ago_ms } => {
                write!(f, "silent for {}, last heard at {}", span(ago_ms), clock(last))
            }
            Cause::Gone { last } => write!(f, "sends no more since {}, another port does", clock(last)),
            Cause::Closed { at, .. } => write!(f, "its connection was closed at {}", clock(at)),
            Cause::NotYetHeard { elsewhere: false } => {
                f.write_str("not heard since the restart; its templates are kept")
            }
            Cause::NotYetHeard { elsewhere: true } => {
                f.write_str("not heard since the restart, another port is; its templates are kept")
            }
            Cause::Faulty { fault, times, last, nothing } => {
                let what = if nothing { "no records" } else { "some of it not read" };
                write!(f, "{what}: {fault} ({}, last at {})", often(times), clock(last))
            }
            Cause::Awaited { template, others, sets, since, given_up, was_known } => {
                let which = match others {
                    0 => format!("template {template}"),
                    1 => format!("template {template} and another"),
                    _ => format!("template {template} and {others} others"),
                };
                let sets = if sets == 1 { "1 set".to_owned() } else { format!("{sets} sets") };
                let what = if was_known { "given up to make room" } else { "not seen yet" };
                write!(f, "{which} {what}, {sets} held since {}", clock(since))?;
                if given_up > 0 {
                    write!(f, " and {given_up} given up")?;
                }
                f.write_str(match was_known {
                    true => "; too many templates are sent here: let listen.allow name your exporters alone",
                    false => "; exporters resend theirs every 1 to 30 minutes",
                })
            }
            Cause::TemplatesOnly => f.write_str("templates only, no data yet"),
            Cause::OptionsOnly => f.write_str("options only, no flow records yet"),
            Cause::Nothing => f.write_str("datagrams with no records and no templates in them"),
            Cause::NoRate => f.write_str("sampled, but no rate announced"),
            Cause::StandsStill { protocol, number } => {
                let short = protocol_name(protocol).trim_start_matches("netflow-");
                write!(f, "sends {short} with sequence always {number}: loss cannot be seen")
            }
            Cause::Skewed { ahead_ms, shows } if ahead_ms < UNSET_MS => {
                write!(f, "clock is not set: it says {}", text(shows).get(..10).unwrap_or_default())
            }
            Cause::Skewed { ahead_ms, .. } => {
                let direction = if ahead_ms < 0 { "behind" } else { "ahead" };
                write!(f, "clock is {} {direction}", span(ahead_ms.unsigned_abs()))
            }
            Cause::Lossy { missing, of, unit } => {
                let per_mille = missing.saturating_mul(1_000) / of.max(1);
                let (whole, tenth) = (per_mille / 10, per_mille % 10);
                write!(f, "{whole}.{tenth} % lost on the way here ({missing} of {of} {unit})")
            }
            Cause::Provisional => f.write_str("decoded by templates heard from another port of its address"),
            Cause::Restored => f.write_str("decoded by templates kept from before the restart"),
            Cause::Raw => f.write_str("forwarded unread"),
            Cause::Well => f.write_str("ok"),
        }
    }
}

fn often(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        _ => format!("{times} times"),
    }
}

/// RFC 3339.
fn text(unix_ms: u64) -> String {
    let mut text = Vec::new();
    time::write_rfc3339_millis(&mut text, unix_ms);
    String::from_utf8_lossy(&text).into_owned()
}

/// The time of day.
fn clock(unix_ms: u64) -> String {
    format!("{} UTC", text(unix_ms).get(11..19).unwrap_or_default())
}

/// The two largest units of a span.
pub fn span(ms: u64) -> String {
    let (days, hours, minutes) = (ms / DAY_MS, ms / HOUR_MS % 24, ms / MINUTE_MS % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", ms / 1_000),
        (0, 0, _) if minutes >= 10 => format!("{minutes} min"),
        (0, 0, _) => format!("{minutes} min {} s", ms / 1_000 % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
