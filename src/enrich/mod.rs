//! Names beside numbers: what is known of exporters, interfaces and addresses.
//!
//! ```text
//! static file   options data (shards)   SNMP (tasks)   netlink (task)   last known (disk)   look-up files
//!      \________________\____________________|______________/__________________/______________/
//!                                          Book
//!                                            |  read in place, without a lock
//!                        View (one a shard): batch::Names, asked when a batch is laid out
//! ```
//!
//! For one exporter the first of static, options, SNMP, netlink, last known that has a name for the number gives it; fields
//! that it leaves empty come from others that do not call it otherwise. What was told before an exporter has started anew
//! is not used after that.
//!
//! | if | then |
//! |---|---|
//! | a source is slow, or fails | shards see the tables as they were: nothing waits |
//! | a name is learned later | it stands in later batches |
//! | nobody has a name | the batch carries none; counted by reason |

pub mod book;
pub mod last_known;
pub mod lookup;
mod metrics;
pub mod netlink;
pub mod options;
mod restarts;
mod seen;
mod shelf;
pub mod snmp;
pub mod static_file;
pub mod table;
mod view;

pub use book::Book;
pub use last_known::LastKnown;
pub use metrics::{Metrics, Missing};
pub use seen::Seen;
pub use static_file::StaticFile;
pub use table::{Entry, Table};
pub use view::View;
