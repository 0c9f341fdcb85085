//! Processor time, memory and reads of a process and its children, from `/proc`.
//!
//! Memory is summed over processes, pages they share counted for each: this flatters servers with one process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// What was used between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// The most resident memory, in bytes.
    pub(crate) peak: u64,
    /// Bytes that had to come from a disk.
    pub(crate) read: u64,
}

/// Runs from its start to [`Meter::stop`].
#[derive(Debug)]
pub(crate) struct Meter {
    process: u32,
    cpu: Duration,
    read: u64,
}

impl Meter {
    /// Notes what was used so far and makes the kernel forget earlier peaks.
    pub(crate) fn start(process: u32) -> Result<Self> {
        for process in family(process)? {
            fs::write(format!("/proc/{process}/clear_refs"), "5").context("Cannot reset the peak of memory")?;
        }
        Ok(Self { process, cpu: cpu(process)?, read: read(process)? })
    }

    pub(crate) fn stop(&self) -> Result<Used> {
        Ok(Used {
            cpu: cpu(self.process)?.saturating_sub(self.cpu),
            peak: memory(self.process, "VmHWM:")?,
            read: read(self.process)?.saturating_sub(self.read),
        })
    }
}

/// The resident memory of a process and its children, in bytes.
pub(crate) fn resident(process: u32) -> Result<u64> {
    memory(process, "VmRSS:")
}

fn memory(process: u32, key: &str) -> Result<u64> {
    let kib: u64 = family(process)?.into_iter().map(|process| line(process, "status", key)).sum::<Result<_>>()?;
    Ok(kib << 10)
}

fn read(process: u32) -> Result<u64> {
    family(process)?.into_iter().map(|process| line(process, "io", "read_bytes:")).sum()
}

/// The number in the line of `file` that begins with `key`.
fn line(process: u32, file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("No {key} in {file}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn cpu(process: u32) -> Result<Duration> {
    family(process)?.into_iter().map(cpu_of_one).sum()
}

fn cpu_of_one(process: u32) -> Result<Duration> {
    let ticks =
        |fields: &Fields| -> Result<u64> { Ok(fields.get(14)?.parse::<u64>()? + fields.get(15)?.parse::<u64>()?) };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros(ticks(&Fields::of(process)?)? * 1_000_000 / per_second))
}

/// A process and all below it.
fn family(process: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended meanwhile is nobody's child.
        let Ok(fields) = Fields::of(number) else { continue };
        parents.push((number, fields.get(4)?.parse::<u32>()?));
    }
    let mut family = vec![process];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, its_parent)| *its_parent == parent).map(|(child, _)| *child));
        at += 1;
    }
    Ok(family)
}

/// `/proc/PID/stat`, its fields numbered as in proc(5).
struct Fields(String);

impl Fields {
    fn of(process: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name is in parentheses and may hold anything.
        let after_name = stat.rsplit_once(") ").context("No name in stat")?.1;
        Ok(Self(after_name.to_owned()))
    }

    fn get(&self, number: usize) -> Result<&str> {
        self.0.split(' ').nth(number - 3).with_context(|| format!("No field {number} in stat"))
    }
}
