//! Patches against a reference.
