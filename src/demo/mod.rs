//! `flowproxy demo`: mesh, proxy and collector in one process, through real sockets.

pub mod numbers;
pub mod screen;
pub mod summary;
pub mod tally;
pub mod throw_away;
pub mod view;
pub mod witness;
