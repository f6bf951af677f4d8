//! A record at the far end: a row of fields with what belongs to its run, and its form in JSON.
