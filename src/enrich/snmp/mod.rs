//! Names of interfaces from the devices themselves, by SNMP.
//!
//! ```text
//! Book::seen --> Rounds --> meet (who are you, since when?) --> read (IF-MIB's columns) --> Book::set_snmp
//!                  ^ each device when it is due, so many at once        |
//!                  '------- in its interval, or later after failures ---'
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `rounds` | whose turn it is, and what comes of it |
//! | `device` | when one device is asked again, and whether its numbers still stand for the same interfaces; pure |
//! | `credential` | which credential is for which device |
//! | `session`, `reading` | the conversation |
//! | [`check`] | the same once, for a person |
//!
//! | if | then |
//! |---|---|
//! | a device fails | its names stay, and grow old; it is asked again after its interval, then twice that and so on up to an hour; after eight failures only one request an hour is sent |
//! | it refuses the credential | the same, from a quarter of an hour on: tries raise alarms and lock accounts |
//! | it has started anew, by sysUpTime, snmpEngineBoots or its flow | its names are dropped at once, and read again |
//! | a number has another name | the whole table is new, and what was known from before is dropped |
//! | no flow comes from it for an hour | it is forgotten |
//!
//! Secrets are [`crate::config::Secret`]s and shown nowhere.

mod board;
pub mod check;
mod credential;
mod device;
mod error;
mod metrics;
mod reading;
mod rounds;
mod session;

pub use board::{Board, Row};
pub use error::Error;
pub use metrics::Metrics;
pub use rounds::{MOST_DEVICES, Source};
