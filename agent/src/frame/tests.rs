//! Frames: cut, compressed and read back.
