//! (module uplink)
