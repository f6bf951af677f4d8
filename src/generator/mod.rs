//! (module generator)
