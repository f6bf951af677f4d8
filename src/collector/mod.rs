//! (module collector)
