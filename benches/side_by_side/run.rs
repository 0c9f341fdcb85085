//! One run from its content to its report.

use std::fs;
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::command::Command;
use crate::content::Library;
use crate::peers::{Peer, PeerKind, Surroundings};
use crate::registry::Registry;
use crate::report::{Curves, Metric, Results, Row, Sample, Strictness, bars_table, details, judge, to_json, update};
use crate::workloads::{Growth, InBucket, Many, Name, Workload, prepare};

/// Runs what was asked for and prints the report.
pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let directory = match &command.directory {
        Some(directory) => TempDir::new_in(directory),
        None => TempDir::new(),
    };
    let directory = directory.context("Cannot make a directory for the run")?;
    let (peers, missing): (Vec<_>, Vec<_>) = command.peers().into_iter().partition(|kind| kind.is_installed());
    for kind in missing {
        println!("left out: {kind}, as {} is not installed", kind.program().unwrap_or_default());
    }
    let library = Library::new(&directory.path().join("files"));
    fs::create_dir_all(library.root())?;
    let run = Run { command, directory, peers, load_before: load() };
    if command.growth { run.growth(library) } else { run.side_by_side(library) }
}

struct Run<'a> {
    command: &'a Command,
    directory: TempDir,
    peers: Vec<PeerKind>,
    /// What else the machine did when it began.
    load_before: String,
}

impl Run<'_> {
    /// Row by row, everybody in turns.
    fn side_by_side(&self, mut library: Library) -> Result<ExitCode> {
        let (names, scale) = (self.command.workloads(), self.command.scale());
        let workloads = prepare(&names, &scale, &mut library)?;
        let with_bucket = names.contains(&Name::W12) && self.peers.contains(&PeerKind::WeirBucket);
        let in_bucket = with_bucket.then(|| InBucket::prepare(&scale, &mut library)).transpose()?;
        let many = names.contains(&Name::W9).then(|| Many::prepare(&scale, &mut library)).transpose()?;
        let (surroundings, registry) = self.serve(library)?;
        let start = |kind: &PeerKind| Peer::start(*kind, kind.as_str(), &surroundings);
        let peers = self.peers.iter().filter(|kind| !kind.is_for_bucket()).map(start).collect::<Result<Vec<_>>>()?;

        let mut results = Results::default();
        note_idle(&peers, &mut results)?;
        for workload in &workloads {
            let title = workload.row().title();
            timed(title, || self.measure(workload.as_ref(), &peers, &registry, &mut results))?;
        }
        if let Some(many) = &many {
            for kind in self.peers.iter().copied().filter(|kind| kind.is_cache()) {
                let title = format!("{}, {kind}", Row::W9Many.title());
                timed(&title, || many.run(kind, &surroundings, &registry, &mut results))?;
            }
        }
        if let Some(in_bucket) = &in_bucket {
            timed("W12", || in_bucket.run(&surroundings, &registry, &mut results))?;
        }
        self.report(&results)
    }

    /// Step by step, one peer after the other.
    fn growth(&self, mut library: Library) -> Result<ExitCode> {
        let growth = Growth::prepare(self.command.most_blobs, &mut library)?;
        let (surroundings, registry) = self.serve(library)?;
        let mut curves = Curves::default();
        for kind in self.peers.iter().copied().filter(|kind| kind.is_cache()) {
            timed(kind.as_str(), || growth.run(kind, &surroundings, &registry, &mut curves))?;
        }
        let tables = format!("{}\n{}", self.circumstances(), curves.tables());
        println!("{tables}");
        for file in &self.command.update {
            update(file, &[("growth", &tables)])?;
            for (name, chart) in curves.charts() {
                fs::write(file.with_file_name(name), chart).with_context(|| format!("Cannot write {name}"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Starts the upstream.
    fn serve(&self, library: Library) -> Result<(Surroundings, Registry)> {
        if !self.command.smoke {
            library.flush()?;
        }
        let files = library.root().to_owned();
        let registry = Registry::start(library)?;
        let directory = self.directory.path().to_owned();
        Ok((Surroundings { directory, files, upstreams: registry.addresses(), bucket: None }, registry))
    }

    /// One row: everybody once without the clock, then in turns with it.
    fn measure(
        &self,
        workload: &dyn Workload,
        peers: &[Peer],
        registry: &Registry,
        results: &mut Results,
    ) -> Result<()> {
        let row = workload.row();
        let peers: Vec<_> = peers.iter().filter(|peer| workload.suits(peer.kind)).collect();
        for peer in &peers {
            let failures =
                workload.prime(peer, registry).with_context(|| format!("{}, before the rounds", peer.kind))?;
            results.complain(row, peer.kind, &failures);
            let mut sample = Sample::default();
            sample.set_count(Metric::VerifyErrors, failures.count());
            results.add(row, peer.kind, sample);
        }
        for round in 0..workload.rounds(&self.command.scale()) {
            // Whoever was last is first, so that nobody always follows the same other.
            let (mut forth, mut back) = (peers.iter(), peers.iter().rev());
            let turns: &mut dyn Iterator<Item = _> = if round.is_multiple_of(2) { &mut forth } else { &mut back };
            for peer in turns {
                let sample = workload.round(peer, registry, round);
                let sample = sample.with_context(|| format!("{}, round {}", peer.kind, round + 1))?;
                results.add(row, peer.kind, sample);
            }
        }
        Ok(())
    }

    /// What a reader of the numbers has to know.
    fn circumstances(&self) -> String {
        let processors = thread::available_parallelism().map_or(0, NonZero::get);
        let passes = if self.command.growth { 1 } else { self.command.scale().rounds };
        format!(
            "{processors} processors, shared by the load, the servers and the upstream; rounds: {passes}; load average when it \
             began: {}.",
            self.load_before
        )
    }

    fn report(&self, results: &Results) -> Result<ExitCode> {
        let bars = judge(results);
        let (bars_table, rows) = (bars_table(&bars), format!("{}\n{}", self.circumstances(), details(results)));
        println!("{bars_table}");
        if !self.command.smoke {
            // In so short a time they say nothing.
            println!("{rows}");
        }
        for file in &self.command.update {
            update(file, &[("bars", &bars_table), ("rows", &rows)])?;
        }
        for complaint in results.complaints() {
            println!("- {complaint}");
        }
        if let Some(file) = &self.command.json {
            fs::write(file, to_json(results, &bars).to_string()).context("Cannot write the JSON file")?;
        }
        let broken = bars.iter().filter(|bar| bar.strictness == Strictness::Count && !bar.met).count();
        if self.command.smoke && broken > 0 {
            eprintln!("{broken} promises about counts and sizes are broken");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The load average of the last minute, or a word that it is not known.
fn load() -> String {
    let averages = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    averages.split(' ').next().filter(|first| !first.is_empty()).unwrap_or("unknown").to_owned()
}

fn note_idle(peers: &[Peer], results: &mut Results) -> Result<()> {
    for peer in peers {
        let (Some(resident), Some(started_in)) = (peer.resident()?, peer.started_in()) else { continue };
        let mut sample = Sample::default();
        sample.set_mib(Metric::ResidentMib, resident);
        sample.set_ms(Metric::StartMs, started_in);
        results.add(Row::Idle, peer.kind, sample);
    }
    Ok(())
}

/// Does something, and says how long it took.
fn timed(title: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    act().with_context(|| title.to_owned())?;
    eprintln!("{title} ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
