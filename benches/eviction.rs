//! What it costs to decide which blob goes, and to know all that are there: `cargo bench --bench eviction`.
//!
//! One admission of a blob into a full store: the least valuable one is chosen and forgotten, the new one is entered.
//! Between admissions blobs are read, each read being a look into the index. Memory is what the process took more.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "this program reports on its output")]

use std::hint::black_box;
use std::time::Duration;

use tokio::time::Instant;
use weir::oci::Digest;
use weir::store::eviction::{Index, Tick};

const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const ADMISSIONS: u32 = 20_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1024 * 1024;

fn main() {
    // `cargo test --benches` and the smoke form ask only whether it runs.
    let is_smoke = std::env::args().any(|argument| argument == "--test" || argument == "--smoke");
    println!("| blobs | one admission | of it steps in the order | one read | memory per blob | by its own count |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for blobs in SIZES.into_iter().take(if is_smoke { 2 } else { SIZES.len() }) {
        measure(blobs);
    }
}

fn measure(blobs: u32) {
    let names: Vec<_> = (0..blobs + ADMISSIONS).map(|number| Digest::of(&number.to_le_bytes())).collect();
    let before = resident();
    let mut index = Index::default();
    for (number, name) in (0..blobs).zip(&names) {
        // As a walk finds them: in no order, of all ages and sizes.
        let used = Tick::START.before(DAY * (number % 97));
        index.found(name, u64::from(number % 251) * MIB / 16 + 1000, used, used, Tick::START);
    }
    let each = (resident().saturating_sub(before)) / u64::from(blobs);
    let own = index.memory() as u64 / u64::from(blobs);
    let mut now = Tick::START.after(DAY);
    index.evictable(now);

    let (steps, begun) = (index.operations(), Instant::now());
    for name in &names[blobs as usize..] {
        // So slowly that a small store can take what comes.
        now = now.after(Duration::from_secs(60));
        let victim = black_box(index.choose(now)).unwrap();
        index.removed(&victim.digest);
        index.stored(name, MIB, now);
    }
    let admission = begun.elapsed() / ADMISSIONS;
    let steps = f64::from(u32::try_from(index.operations() - steps).unwrap_or(u32::MAX)) / f64::from(ADMISSIONS);
    let begun = Instant::now();
    for name in names.iter().rev().take(ADMISSIONS as usize) {
        index.used(black_box(name), now);
    }
    let read = begun.elapsed() / ADMISSIONS;
    println!("| {blobs} | {admission:?} | {steps:.1} | {read:?} | {each} B | {own} B |");
}

/// The bytes of memory that the process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = status.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}
