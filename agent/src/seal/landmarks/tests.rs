//! Landmarks that find shifted content again.
