//! The interfaces and addresses of this host, put together from what the kernel says.
//!
//! Answers and changes come over one socket. An answer may have been made before a change that stands ahead of it, so within a round
//! (from asking until all is answered) a change counts more than an answer about the same thing. What a round has neither
//! answered nor told as a change is gone.

use super::message::{Body, Held};
use crate::enrich::book::Host;
use crate::enrich::table::{Entry, MOST_INTERFACES, Table};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Addresses that are kept; and changes that are kept in mind within a round.
const MOST_ADDRESSES: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interfaces {
    links: HashMap<u32, Link>,
    addresses: HashMap<Held, u32>,
    round: u32,
    is_in_round: bool,
    changed_links: HashSet<u32>,
    changed_addresses: HashSet<Held>,
    /// Interfaces whose speed is to be read.
    unread: HashSet<u32>,
    /// When an answer or a change last came, in milliseconds since 1970.
    told: u64,
    /// There was no room for something.
    pub(super) is_full: bool,
}

#[derive(Debug)]
struct Link {
    entry: Entry,
    round: u32,
}

impl Interfaces {
    /// Begins a round.
    pub(super) fn begin(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.changed_links.clear();
        self.changed_addresses.clear();
        self.is_in_round = true;
        self.is_full = false;
    }

    /// Ends it: everything was answered.
    pub(super) fn end(&mut self) {
        let round = self.round;
        self.links.retain(|_, link| link.round == round);
        self.addresses.retain(|_, seen| *seen == round);
        self.is_in_round = false;
        self.changed_links = HashSet::new();
        self.changed_addresses = HashSet::new();
    }

    /// Takes what the kernel said, `is_answer` when it was asked; false if nothing of it concerns us.
    pub(super) fn take(&mut self, body: Body, is_answer: bool, now: u64) -> bool {
        match body {
            Body::Link { index, name, alias } => {
                if self.counts_link(index, is_answer) {
                    self.set_link(index, &name, &alias, now);
                }
            }
            Body::LinkGone { index } => {
                if self.counts_link(index, is_answer) {
                    self.links.remove(&index);
                    self.unread.remove(&index);
                    self.addresses.retain(|held, _| held.index != index);
                }
            }
            Body::Address(held) => {
                if self.counts_address(held, is_answer) {
                    self.set_address(held);
                }
            }
            Body::AddressGone(held) => {
                if self.counts_address(held, is_answer) {
                    self.addresses.remove(&held);
                }
            }
            Body::End { .. } | Body::Overrun | Body::Other => return false,
        }
        self.told = now;
        true
    }

    fn counts_link(&mut self, index: u32, is_answer: bool) -> bool {
        if is_answer {
            return !self.changed_links.contains(&index);
        }
        if self.is_in_round {
            note(&mut self.changed_links, index, MOST_INTERFACES, &mut self.is_full);
        }
        true
    }

    fn counts_address(&mut self, held: Held, is_answer: bool) -> bool {
        if is_answer {
            return !self.changed_addresses.contains(&held);
        }
        if self.is_in_round {
            note(&mut self.changed_addresses, held, MOST_ADDRESSES, &mut self.is_full);
        }
        true
    }

    fn set_link(&mut self, index: u32, name: &str, alias: &str, now: u64) {
        if self.links.len() >= MOST_INTERFACES && !self.links.contains_key(&index) {
            self.is_full = true;
            return;
        }
        let round = self.round;
        let same = self.links.get(&index).filter(|link| *link.entry.name == *name);
        let speed = same.map_or(0, |link| link.entry.speed);
        let entry = Entry { name: name.into(), description: alias.into(), speed, told: now };
        self.links.insert(index, Link { entry, round });
        self.unread.insert(index);
    }

    fn set_address(&mut self, held: Held) {
        if self.addresses.len() >= MOST_ADDRESSES && !self.addresses.contains_key(&held) {
            self.is_full = true;
            return;
        }
        self.addresses.insert(held, self.round);
    }

    /// Whether speeds are to be read.
    pub(super) fn has_unread_speeds(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The interfaces whose speed is to be read, with their names; what is told from now on is to be read again.
    pub(super) fn take_unread_speeds(&mut self) -> Vec<(u32, Arc<str>)> {
        let unread = std::mem::take(&mut self.unread);
        let named = |index| self.links.get(&index).map(|link| (index, Arc::clone(&link.entry.name)));
        unread.into_iter().filter_map(named).collect()
    }

    /// Takes speeds that were read, in bits per second, where the interface is still that one. True if one is new.
    pub(super) fn set_speeds(&mut self, read: &[(u32, Arc<str>, u64)]) -> bool {
        let mut is_changed = false;
        for (index, name, speed) in read {
            if let Some(link) = self.links.get_mut(index).filter(|link| link.entry.name == *name) {
                is_changed |= link.entry.speed != *speed;
                link.entry.speed = *speed;
            }
        }
        is_changed
    }

    /// (interfaces, addresses) that are known.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.links.len(), self.addresses.len())
    }

    /// All of it, for the book.
    pub(super) fn host(&self) -> Host {
        let interfaces = self.links.iter().map(|(index, link)| (*index, link.entry.clone())).collect();
        Host {
            table: Arc::new(Table { interfaces, told: self.told }),
            addresses: self.addresses.keys().map(|held| held.address).collect(),
        }
    }
}

fn note<T: Eq + std::hash::Hash>(set: &mut HashSet<T>, item: T, most: usize, is_full: &mut bool) {
    if set.len() >= most {
        *is_full = true;
    } else {
        set.insert(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: bool = true;
    const CHANGE: bool = false;

    fn link(index: u32, name: &str) -> Body {
        Body::Link { index, name: name.to_owned(), alias: String::new() }
    }

    fn held(index: u32, last: u8, prefix: u8) -> Held {
        Held { index, address: [10, 0, 0, last].into(), prefix }
    }

    fn names(interfaces: &Interfaces) -> Vec<(u32, String)> {
        let host = interfaces.host();
        let mut names: Vec<_> =
            host.table.interfaces.iter().map(|(index, entry)| (*index, entry.name.to_string())).collect();
        names.sort();
        names
    }

    #[test]
    fn a_change_counts_more_than_an_answer_that_was_made_before_it() {
        let mut interfaces = Interfaces::default();
        interfaces.begin();
        interfaces.take(link(1, "new"), CHANGE, 1);
        interfaces.take(Body::LinkGone { index: 2 }, CHANGE, 1);
        interfaces.take(link(1, "old"), ANSWER, 1);
        interfaces.take(link(2, "gone"), ANSWER, 1);
        interfaces.take(link(3, "there"), ANSWER, 1);
        interfaces.end();
        assert_eq!(names(&interfaces), [(1, "new".to_owned()), (3, "there".to_owned())]);
        // Of the next round it is not true any more.
        interfaces.begin();
        interfaces.take(link(1, "newer"), ANSWER, 2);
        interfaces.end();
        assert_eq!(names(&interfaces), [(1, "newer".to_owned())]);
    }

    #[test]
    fn an_index_that_is_used_anew_has_nothing_of_the_old_interface() {
        let mut interfaces = Interfaces::default();
        interfaces.begin();
        interfaces.take(
            Body::Link { index: 4, name: "old".to_owned(), alias: "its alias".to_owned() },
            CHANGE,
            1,
        );
        interfaces.set_speeds(&[(4, "old".into(), 10)]);
        interfaces.take(Body::Address(held(4, 1, 24)), CHANGE, 1);
        interfaces.take(Body::LinkGone { index: 4 }, CHANGE, 2);
        assert!(names(&interfaces).is_empty());
        assert!(interfaces.host().addresses.is_empty());
        interfaces.take(link(4, "new"), CHANGE, 3);
        let entry = &interfaces.host().table.interfaces[&4];
        assert_eq!((&*entry.name, &*entry.description, entry.speed, entry.told), ("new", "", 0, 3));
    }

    #[test]
    fn a_speed_belongs_to_the_name_that_it_was_read_for() {
        let mut interfaces = Interfaces::default();
        interfaces.take(link(1, "a"), CHANGE, 1);
        let asked = interfaces.take_unread_speeds();
        interfaces.take(link(1, "b"), CHANGE, 2);
        let read: Vec<_> = asked.into_iter().map(|(index, name)| (index, name, 1_000)).collect();
        assert!(!interfaces.set_speeds(&read));
        assert_eq!(interfaces.host().table.interfaces[&1].speed, 0);
        assert_eq!(interfaces.take_unread_speeds(), [(1, "b".into())]);
        assert!(interfaces.set_speeds(&[(1, "b".into(), 1_000)]));
        assert!(!interfaces.has_unread_speeds());
    }

    #[test]
    fn an_address_is_there_as_long_as_one_of_its_prefixes_is() {
        let mut interfaces = Interfaces::default();
        interfaces.take(Body::Address(held(1, 1, 24)), CHANGE, 1);
        interfaces.take(Body::Address(held(1, 1, 32)), CHANGE, 1);
        interfaces.take(Body::AddressGone(held(1, 1, 24)), CHANGE, 1);
        assert!(interfaces.host().addresses.contains(&held(1, 1, 0).address));
        interfaces.take(Body::AddressGone(held(1, 1, 32)), CHANGE, 1);
        assert!(interfaces.host().addresses.is_empty());
    }

    #[test]
    fn there_is_no_room_for_more_than_the_limit() {
        let mut interfaces = Interfaces::default();
        interfaces.begin();
        for index in 0..=MOST_INTERFACES as u32 {
            interfaces.take(link(index, "x"), ANSWER, 1);
        }
        assert_eq!(interfaces.counts().0, MOST_INTERFACES);
        assert!(interfaces.is_full);
    }
}
