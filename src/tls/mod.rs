//! Certificates and the one place that knows rustls.
