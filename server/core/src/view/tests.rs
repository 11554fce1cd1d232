//! The merging view against a naive map.
