//! How many connections may be open at a time: in all, and from one address.

use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many are open as may be.
    All,
    /// As many are open from its address as may be from one.
    Address,
}

impl Full {
    /// The counter's label.
    pub const fn label(self) -> &'static str {
        match self {
            Full::All => "connections",
            Full::Address => "address",
        }
    }
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Who may still come in. Cheap to clone; clones share the places.
#[derive(Clone, Debug)]
pub struct Places {
    taken: Arc<Mutex<Taken>>,
    limit: usize,
    limit_per_address: usize,
    /// How many are taken.
    open: Gauge,
}

impl Places {
    /// So many in all, so many for one address; `open` shows how many are taken.
    pub fn new(limit: usize, limit_per_address: usize, open: Gauge) -> Places {
        Places { taken: Arc::default(), limit, limit_per_address, open }
    }

    /// A place for a connection from `address`.
    ///
    /// # Errors
    /// What of it is used up.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.all >= self.limit {
            return Err(Full::All);
        }
        if of_address >= self.limit_per_address {
            return Err(Full::Address);
        }
        taken.all += 1;
        taken.by_address.insert(address, of_address + 1);
        self.open.inc();
        Ok(Place { places: self.clone(), address })
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                taken.by_address.remove(&self.address);
            }
        }
        self.places.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_per_address_and_given_back() {
        let (a, b, c): (IpAddr, IpAddr, IpAddr) = ([1; 4].into(), [2; 4].into(), [3; 4].into());
        let open = Gauge::default();
        let places = Places::new(3, 2, open.clone());
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert_eq!(places.take(a).unwrap_err(), Full::Address);
        let _third = places.take(b).unwrap();
        assert_eq!(places.take(c).unwrap_err(), Full::All);
        drop(first);
        let _fourth = places.take(c).unwrap();
        assert_eq!(open.get(), 3);
        assert_eq!(places.taken.lock().unwrap().by_address[&a], 1);
    }
}
