//! Speeds of this host's interfaces. rtnetlink does not tell them; sysfs does.

use std::path::Path;
use std::sync::Arc;

/// Where the kernel shows its interfaces.
pub(super) const FOLDER: &str = "/sys/class/net";
/// What sysfs says is in Mbit/s.
const MEGABIT: u64 = 1_000_000;
/// What some drivers say that do not know: -1, as a number without a sign.
const UNKNOWN: u64 = u32::MAX as u64;

/// An interface's number and name, and its speed in bits per second, 0 if that is not known.
pub(super) type Speed = (u32, Arc<str>, u64);

/// Reads the speeds of interfaces. It asks drivers, and may wait for them.
pub(super) fn read(folder: &Path, of: Vec<(u32, Arc<str>)>) -> Vec<Speed> {
    let with_speed = |(index, name): (u32, Arc<str>)| {
        let speed = one(folder, index, &name).unwrap_or(0);
        (index, name, speed)
    };
    of.into_iter().map(with_speed).collect()
}

fn one(folder: &Path, index: u32, name: &str) -> Option<u64> {
    // The kernel gives no such names, and they would lead elsewhere.
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return None;
    }
    let number = |what: &str| std::fs::read_to_string(folder.join(name).join(what)).ok();
    // The folder may be one of another network namespace, in which the same name is another interface.
    if number("ifindex")?.trim().parse() != Ok(index) {
        return None;
    }
    // It fails, or is -1, while there is no carrier and where there is no such thing as a speed.
    let megabits: u64 = number("speed")?.trim().parse().ok()?;
    (megabits < UNKNOWN).then(|| megabits.saturating_mul(MEGABIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_counts_only_for_the_interface_of_that_number() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, index: &str, speed: Option<&str>| {
            let interface = folder.path().join(name);
            std::fs::create_dir(&interface).unwrap();
            std::fs::write(interface.join("ifindex"), index).unwrap();
            if let Some(speed) = speed {
                std::fs::write(interface.join("speed"), speed).unwrap();
            }
        };
        of("eth0", "2\n", Some("10000\n"));
        of("other", "9\n", Some("1000\n"));
        of("down", "4\n", Some("-1\n"));
        of("unknown", "5\n", Some("4294967295\n"));
        of("lo", "1\n", None);
        let asked = [(2, "eth0"), (3, "other"), (4, "down"), (5, "unknown"), (1, "lo"), (7, "../eth0")];
        let asked = asked.into_iter().map(|(index, name)| (index, Arc::from(name))).collect();
        let speeds: Vec<_> = read(folder.path(), asked).into_iter().map(|(_, _, speed)| speed).collect();
        assert_eq!(speeds, [10_000_000_000, 0, 0, 0, 0, 0]);
    }
}
