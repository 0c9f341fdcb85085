//! One run from its content to its report.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::command::Command;
use crate::content::Library;
use crate::peers::{Peer, PeerKind, Surroundings};
use crate::registry::Registry;
use crate::report::{Metric, Results, Row, Sample, Strictness, bars_table, details, judge, to_json};
use crate::workloads::{Many, Name, Workload, prepare};

/// Runs what was asked for and prints the report.
pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let directory = match &command.directory {
        Some(directory) => TempDir::new_in(directory),
        None => TempDir::new(),
    };
    let directory = directory.context("Cannot make a directory for the run")?;
    let (kinds, missing): (Vec<_>, Vec<_>) = command.peers().into_iter().partition(|kind| kind.is_installed());
    for kind in missing {
        println!("left out: {kind}, as {} is not installed", kind.program().unwrap_or_default());
    }

    let mut library = Library::new(&directory.path().join("files"));
    fs::create_dir_all(library.root())?;
    let names = command.workloads();
    let workloads = prepare(&names, &command.scale(), &mut library)?;
    let many = names.contains(&Name::W9).then(|| Many::prepare(&command.scale(), &mut library)).transpose()?;
    if !command.smoke {
        library.flush()?;
    }
    let files = library.root().to_owned();
    let registry = Registry::start(library)?;
    let surroundings = Surroundings { directory: directory.path().to_owned(), files, upstream: registry.address() };
    let peers =
        kinds.iter().map(|kind| Peer::start(*kind, kind.as_str(), &surroundings)).collect::<Result<Vec<_>>>()?;

    let mut results = Results::default();
    note_idle(&peers, &mut results)?;
    for workload in &workloads {
        measure(workload.as_ref(), &peers, &registry, command, &mut results)?;
    }
    if let Some(many) = &many {
        for kind in kinds.into_iter().filter(|kind| Many::suits(*kind)) {
            let started = Instant::now();
            many.run(kind, &surroundings, &registry, &mut results).with_context(|| format!("W9, {kind}"))?;
            eprintln!("{}, {kind} ({:.1} s)", Row::W9Many.title(), started.elapsed().as_secs_f64());
        }
    }
    report(command, &results)
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

/// One row: everybody once without the clock, then in turns with it.
fn measure(
    workload: &dyn Workload,
    peers: &[Peer],
    registry: &Registry,
    command: &Command,
    results: &mut Results,
) -> Result<()> {
    let row = workload.row();
    let started = Instant::now();
    let takes_part = |kind: PeerKind| workload.suits(kind);
    let peers: Vec<_> = peers.iter().filter(|peer| takes_part(peer.kind)).collect();
    for peer in &peers {
        let failures = workload.prime(peer, registry).with_context(|| format!("{}, {}", row.title(), peer.kind))?;
        results.complain(row, peer.kind, &failures);
        let mut sample = Sample::default();
        sample.set_count(Metric::VerifyErrors, failures.count());
        results.add(row, peer.kind, sample);
    }
    for round in 0..command.scale().rounds {
        for peer in &peers {
            let sample = workload
                .round(peer, registry, round)
                .with_context(|| format!("{}, {}, round {}", row.title(), peer.kind, round + 1))?;
            results.add(row, peer.kind, sample);
        }
    }
    eprintln!("{} ({:.1} s)", row.title(), started.elapsed().as_secs_f64());
    Ok(())
}

fn report(command: &Command, results: &Results) -> Result<ExitCode> {
    let bars = judge(results);
    println!("{}", bars_table(&bars));
    if !command.smoke {
        // In so short a time they say nothing.
        println!("{}", details(results));
    }
    for complaint in results.complaints() {
        println!("- {complaint}");
    }
    if let Some(file) = &command.json {
        fs::write(file, to_json(results, &bars).to_string()).context("Cannot write the JSON file")?;
    }
    let broken = bars.iter().filter(|bar| bar.strictness == Strictness::Count && !bar.met).count();
    if command.smoke && broken > 0 {
        eprintln!("{broken} promises about counts and sizes are broken");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
