//! W9: stores with few and with many small blobs. What has to be the same whatever is stored, and what each blob costs.
//!
//! Each peer is started twice more, with empty stores: one is filled with few blobs and one with many, and they take
//! turns in being read.

use anyhow::Result;

use super::Scale;
use super::store::{SmallBlobs, Store};
use crate::content::Library;
use crate::peers::{PeerKind, Surroundings};
use crate::registry::{Registry, Shape};
use crate::report::{Metric, Results, Row, Sample};

/// The most layers of one manifest.
const LAYERS: usize = 1000;

/// The blobs, few of which are enough for one of the stores.
pub(crate) struct Many {
    content: SmallBlobs,
    /// The images of the store with few blobs.
    few: usize,
    rounds: usize,
}

impl Many {
    pub(crate) fn prepare(scale: &Scale, library: &mut Library) -> Result<Self> {
        let layers = LAYERS.min(scale.few_blobs);
        let mut content = SmallBlobs::prepare(library, scale.many_blobs, layers)?;
        (content.patience, content.window) = (scale.patience, scale.window);
        Ok(Self { content, few: scale.few_blobs / layers, rounds: scale.rounds })
    }

    /// Fills, reads and restarts the two stores of one peer.
    pub(crate) fn run(
        &self,
        kind: PeerKind,
        surroundings: &Surroundings,
        registry: &Registry,
        results: &mut Results,
    ) -> Result<()> {
        registry.shape(Shape::Plain);
        let start = |name| Store::start(kind, &format!("{kind}-{name}"), &self.content, surroundings, registry);
        let (mut few, mut many) = (start("few")?, start("many")?);
        results.add(Row::W9Few, kind, few.fill(&self.content.images[..self.few])?);
        results.add(Row::W9Many, kind, many.fill(&self.content.images)?);
        for _ in 0..self.rounds {
            results.add(Row::W9Few, kind, few.read()?);
            results.add(Row::W9Many, kind, many.read()?);
        }
        let more_memory = many.resident()?.saturating_sub(few.resident()?);
        let mut sample = Sample::default();
        sample.set_quotient(Metric::MemoryPerBlobBytes, more_memory, many.len().saturating_sub(few.len()));
        results.add(Row::W9Many, kind, sample);
        for (row, store) in [(Row::W9Few, &mut few), (Row::W9Many, &mut many)] {
            let mut sample = Sample::default();
            sample.set_mib(Metric::ResidentMib, store.resident()?);
            sample.merge(store.restart()?);
            results.add(row, kind, sample);
        }
        let more_memory = many.resident()?.saturating_sub(few.resident()?);
        let mut sample = Sample::default();
        sample.set_quotient(Metric::MemoryPerBlobAfterRestartBytes, more_memory, many.len().saturating_sub(few.len()));
        results.add(Row::W9Many, kind, sample);
        Ok(())
    }
}
