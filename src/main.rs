//! The `weir` binary: everything is in the library.

use std::process::ExitCode;

/// Gives memory back after a storm of pulls, which the C library's allocator does not.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    weir::cli::run()
}
