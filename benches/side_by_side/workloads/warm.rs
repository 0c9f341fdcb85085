//! W1 to W4 and W7: what is stored is served again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result};
use weir::oci::Digest;

use super::verify::{Check, verify, whole};
use super::{Name, Scale, Workload};
use crate::content::{Content, Image, Library};
use crate::driver::{Failures, Load, Order, Request, Until};
use crate::peers::{Peer, PeerKind};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Row, Sample};

const TAGS: usize = 8;
const LAYERS_PER_TAG: usize = 8;
const SMALL: u64 = 64 << 10;
const RANGE: u64 = 32 << 10;
/// Of the ranges, this many are hashed before it starts.
const RANGES_VERIFIED: usize = 64;
/// How long the load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long a tag is fresh by default, in all caches that ask again.
const FRESH: Duration = Duration::from_secs(60);

/// One row: requests that are sent in a closed loop.
struct Warm {
    row: Row,
    connections: usize,
    order: Order,
    window: Duration,
    requests: Vec<Request>,
    checks: Vec<Check>,
}

/// The rows of these names.
pub(super) fn prepare(names: &[Name], scale: &Scale, library: &mut Library) -> Result<Vec<Box<dyn Workload>>> {
    let mut rows: Vec<Box<dyn Workload>> = Vec::new();
    let row = |row, connections, order, requests, checks| -> Box<dyn Workload> {
        Box::new(Warm { row, connections, order, window: scale.window, requests, checks })
    };
    if names.iter().any(|name| matches!(name, Name::W1 | Name::W2 | Name::W3)) {
        let images = (0..TAGS)
            .map(|number| library.image("bench/small", &format!("v{number}"), &[SMALL; LAYERS_PER_TAG]))
            .collect::<Result<Vec<_>>>()?;
        let checks: Vec<_> = images.iter().flat_map(whole).collect();
        if names.contains(&Name::W1) {
            rows.push(row(Row::W1Tag, 32, Order::InTurn, images.iter().map(Image::get_tag).collect(), checks.clone()));
        }
        if names.contains(&Name::W2) {
            let requests = images.iter().map(Image::get_manifest).collect();
            rows.push(row(Row::W2Digest, 32, Order::InTurn, requests, checks.clone()));
        }
        if names.contains(&Name::W3) {
            let blobs = images.iter().flat_map(|image| image.layers().iter().map(|layer| image.get_blob(layer)));
            rows.push(row(Row::W3SmallBlobs, 32, Order::InTurn, blobs.collect(), checks));
        }
    }
    if names.iter().any(|name| matches!(name, Name::W4 | Name::W7)) {
        let image = library.image("bench/large", "latest", &[scale.large])?;
        let layer = image.layers()[0];
        if names.contains(&Name::W4) {
            rows.push(row(Row::W4LargeBlob, 4, Order::InTurn, vec![image.get_blob(&layer)], whole(&image)));
        }
        if names.contains(&Name::W7) {
            let path = image.blob_path(&layer);
            let requests: Vec<_> =
                (0..layer.length / RANGE).map(|number| Request::range(&path, number * RANGE, RANGE)).collect();
            let mut checks = whole(&image);
            checks.extend(range_checks(library, &path, &requests)?);
            rows.push(row(Row::W7Ranges, 32, Order::AtRandom { seed: 7 }, requests, checks));
        }
    }
    Ok(rows)
}

/// Some of the ranges, with what they hash to.
fn range_checks(library: &Library, path: &str, requests: &[Request]) -> Result<Vec<Check>> {
    let entry = library.entry(path).context("The blob was just made")?;
    let Content::File(file) = &entry.content else { return Ok(Vec::new()) };
    let step = (requests.len() / RANGES_VERIFIED).max(1);
    let ranges = requests.iter().zip(0..).step_by(step);
    ranges
        .map(|(request, number)| Ok(Check { request: request.clone(), digest: digest_of_part(file, number * RANGE)? }))
        .collect()
}

fn digest_of_part(file: &File, first: u64) -> Result<Digest> {
    let mut bytes = vec![0; usize::try_from(RANGE)?];
    file.read_exact_at(&mut bytes, first)?;
    Ok(Digest::of(&bytes))
}

impl Workload for Warm {
    fn row(&self) -> Row {
        self.row
    }

    fn suits(&self, peer: PeerKind) -> bool {
        match peer {
            PeerKind::Direct => false,
            // The log costs the same whatever is asked for.
            PeerKind::WeirLogging => self.row == Row::W2Digest,
            _ => !peer.is_for_failover(),
        }
    }

    fn prime(&self, peer: &Peer, registry: &Registry) -> Result<Failures> {
        registry.shape(Shape::Plain);
        verify(peer, &self.checks)
    }

    fn round(&self, peer: &Peer, registry: &Registry, round: usize) -> Result<Sample> {
        registry.shape(Shape::Plain);
        let order = match self.order {
            Order::InTurn => Order::InTurn,
            Order::AtRandom { seed } => Order::AtRandom { seed: seed ^ (round as u64) << 32 },
        };
        let load = |window| Load {
            address: peer.address,
            connections: self.connections,
            requests: &self.requests,
            order,
            until: Until::Elapsed(window),
        };
        let before = registry.counts();
        load(WARM_UP.min(self.window)).run()?;
        let meter = peer.meter()?;
        let outcome = load(self.window).run()?;
        let used = meter.map(|meter| meter.stop()).transpose()?;
        let mut sample = Sample::default();
        sample.set_outcome(&outcome);
        if self.row == Row::W4LargeBlob {
            sample.set_used_by_bytes(used, outcome.bytes);
        } else {
            sample.set_used_by_requests(used, outcome.answers);
        }
        let counts = registry.counts() - before;
        sample.set_upstream(&counts, 0);
        if self.row == Row::W1Tag {
            sample.set(Metric::UpstreamHeads, heads_per_period(counts.manifests(), outcome.elapsed));
        }
        Ok(sample)
    }
}

/// Requests for manifests upstream, per tag and started freshness period.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn heads_per_period(requests: u64, elapsed: Duration) -> f64 {
    let periods = (elapsed + WARM_UP).as_secs_f64() / FRESH.as_secs_f64();
    requests as f64 / (TAGS as f64 * periods.ceil())
}
