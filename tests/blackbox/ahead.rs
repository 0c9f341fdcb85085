//! Ranges far ahead of a download.
