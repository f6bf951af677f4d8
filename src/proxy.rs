//! (module proxy)
