//! Tests of whole clusters: in-process members and real processes, through the public client. See `tests/`.
