//! Where flows come from, one file for each source.

pub mod mesh;
