//! All of an image: its index, what the wanted platforms are made of, and what signs and attests them. Found out first,
//! fetched then, with the right of work that nobody waits for.
//!
//! Signatures and attestations stand beside an image in two ways: under tags made of its digest (`sha256-<hash>.sig`), and in
//! the list of what refers to it. Whether there are any only an upstream can say; where none can be asked, the image is had
//! without, and that is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::background::Stored;
use super::error::PullError;
use super::{PullService, Scope};
use crate::oci::{Closure, Digest, ImageRef, Manifest, Reference, Tag, WantedPlatform};
use crate::store::{Secured, StoreError};
use crate::upstream::UpstreamSet;

/// How many blobs of an image are fetched at once: as many as most runtimes do.
const AT_ONCE: usize = 3;

/// How many objects are looked for in the bucket at once.
const LOOKS_AT_ONCE: usize = 8;

/// What the tags of signatures, attestations and bills of materials end in.
const BESIDE: [&str; 3] = ["sig", "att", "sbom"];

/// How much of an image is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blobs and manifests that are stored.
    pub objects: u64,
    /// All there are, as far as is known.
    pub of_objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of all.
    pub of_bytes: u64,
}

/// Why not all of an image can be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CollectError {
    /// Something of it cannot be fetched.
    #[error("{0}")]
    Pull(#[from] PullError),
    /// The store fails, for another reason than that it is full.
    #[error("{0}")]
    Store(StoreError),
    /// Nothing of it is for a wanted platform.
    #[error("The image is for none of the platforms that are wanted; it has: {}", .has.join(", "))]
    NoSuchPlatform {
        /// What it is for.
        has: Vec<String>,
    },
    /// It is not an image that anybody made in earnest.
    #[error("The image has more than {} manifests", crate::oci::closure::MAX_MANIFESTS)]
    TooLarge,
    /// The store has no room for it.
    #[error("Not kept, store full: {missing} of {objects} blobs and manifests found no room within `store.max_size`")]
    Full {
        /// How many were not stored.
        missing: u64,
        /// Of how many.
        objects: u64,
    },
    /// The directory has no room for it, which is made as what is there gets into the bucket.
    #[error(
        "{missing} of {objects} blobs and manifests found no room in the directory, on their way to the bucket; \
        it is tried again, or raise `store.max_size`"
    )]
    Crowded {
        /// How many were not stored.
        missing: u64,
        /// Of how many.
        objects: u64,
    },
    /// The bucket has not got all of it.
    #[error("{missing} of {objects} blobs and manifests are not in the bucket yet")]
    NotInBucket {
        /// How many.
        missing: u64,
        /// Of how many.
        objects: u64,
    },
}

/// What there is to have of an image.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    pub(super) scope: Scope,
    upstreams: Arc<UpstreamSet>,
    /// The manifest that the image means.
    pub(super) digest: Digest,
    pub(super) beside: Vec<Digest>,
    pub(super) referrers: BTreeMap<Digest, Digest>,
    pub(super) closure: Closure,
    /// Why it could not be found out whether there is more.
    pub(super) doubt: Option<PullError>,
}

impl PullService {
    /// Fetches all of an image for these platforms, or for all if none is named, and tells how far that has come. Returns
    /// what there is to say about it, if anything.
    pub async fn collect(
        &self,
        image: &ImageRef,
        platforms: &[WantedPlatform],
        progress: &(dyn Fn(Amount) + Send + Sync),
    ) -> Result<Option<String>, CollectError> {
        let meaning = self.meaning(image).await?;
        let survey = self.survey(image, meaning, platforms).await?;
        // Who asks for it will come for it: what is here of it counts as used.
        let content: Vec<Digest> = survey.closure.content().map(|(digest, _)| *digest).collect();
        for digest in &content {
            self.shared.store.stat(digest).await;
        }
        self.fetch_all(&survey, progress).await?;
        Ok(survey.doubt.map(|error| format!("signatures could not be looked for: {error}")))
    }

    /// What an image means now.
    pub(super) async fn meaning(&self, image: &ImageRef) -> Result<Digest, PullError> {
        let (scope, upstreams) = self.place_of(image)?;
        match image.reference() {
            Reference::Digest(digest) => Ok(digest),
            Reference::Tag(tag) => Ok(self.resolve_in_background(&scope, &upstreams, &tag).await?.manifest.digest),
        }
    }

    /// Whose right it is to an image, and who is asked for it.
    pub(super) fn place_of(&self, image: &ImageRef) -> Result<(Scope, Arc<UpstreamSet>), PullError> {
        let upstreams = self.upstreams(&image.registry)?;
        Ok((Scope::new(&image.registry, &image.repository, &upstreams), upstreams))
    }

    /// Finds out what there is to have of an image that means `digest`. All manifests of it are stored then, as far as there
    /// is room.
    pub(super) async fn survey(
        &self,
        image: &ImageRef,
        digest: Digest,
        platforms: &[WantedPlatform],
    ) -> Result<Survey, CollectError> {
        let (scope, upstreams) = self.place_of(image)?;
        let closure = Closure::new([digest], platforms);
        let (beside, referrers, doubt) = (Vec::new(), BTreeMap::new(), None);
        let mut survey = Survey { scope, upstreams, digest, beside, referrers, closure, doubt };
        self.look_into(&mut survey).await?;
        if survey.closure.blobs().is_empty() && !survey.closure.left_out().is_empty() {
            return Err(CollectError::NoSuchPlatform { has: survey.closure.left_out().to_vec() });
        }
        let subjects: Vec<Digest> = survey.closure.manifests().keys().copied().collect();
        for subject in subjects {
            if let Err(error) = self.look_beside(&mut survey, subject).await {
                survey.doubt = Some(error);
                break;
            }
        }
        self.look_into(&mut survey).await?;
        Ok(survey)
    }

    /// Looks into all manifests that have not been looked into.
    async fn look_into(&self, survey: &mut Survey) -> Result<(), CollectError> {
        while let Some(pending) = survey.closure.next_manifest() {
            let manifest = self.fetch_in_background(&survey.scope, &survey.upstreams, pending.digest).await?;
            survey.closure.learn(pending, manifest.body.len() as u64, &manifest.view);
            if survey.closure.is_too_large() {
                return Err(CollectError::TooLarge);
            }
        }
        Ok(())
    }

    /// Looks for what signs or attests a manifest.
    async fn look_beside(&self, survey: &mut Survey, subject: Digest) -> Result<(), PullError> {
        for end in BESIDE {
            let Ok(tag) = format!("{}-{}.{end}", subject.algorithm().as_str(), subject.hex()).parse::<Tag>() else {
                continue;
            };
            if let Some(found) = self.resolve_if_there(&survey.scope, &survey.upstreams, &tag).await? {
                survey.beside.push(found.manifest.digest);
            }
        }
        if let Some(list) = self.referrers_in_background(&survey.scope, &survey.upstreams, subject).await?
            && Manifest::parse(None, &list).is_ok_and(|list| !list.manifests.is_empty())
        {
            let digest = Digest::of(&list);
            // Under its own name, it is content like any other.
            let _ = self.shared.store.put(&digest, list).await;
            self.shared.authority.grant_digest(&survey.scope, digest);
            survey.referrers.insert(subject, digest);
        }
        survey.closure.add(survey.beside.iter().copied().chain(survey.referrers.values().copied()));
        Ok(())
    }

    /// Fetches what is missing of an image.
    pub(super) async fn fetch_all(
        &self,
        survey: &Survey,
        progress: &(dyn Fn(Amount) + Send + Sync),
    ) -> Result<(), CollectError> {
        let (of_objects, of_bytes) =
            survey.closure.content().fold((0, 0), |(objects, bytes), (_, size)| (objects + 1, bytes + size));
        let (mut objects, mut bytes, mut missing, mut failed) = (0, 0, 0, None);
        let mut kept = |size: u64| {
            objects += 1;
            bytes += size;
            progress(Amount { objects, of_objects, bytes, of_bytes });
        };
        for (digest, size) in survey.closure.manifests() {
            match self.keep_manifest(digest).await {
                Ok(Stored::Already | Stored::Now) => kept(*size),
                Ok(Stored::NoRoom) | Err(StoreError::Full { .. }) => missing += 1,
                Err(error) => failed = Some(CollectError::Store(error)),
            }
        }
        // The largest last: that many are here is more than that much is.
        let mut blobs: Vec<(Digest, u64)> =
            survey.closure.blobs().iter().map(|(digest, size)| (*digest, *size)).collect();
        blobs.sort_by_key(|(_, size)| *size);
        let fetches = blobs.into_iter().map(|(digest, size)| async move {
            (self.store_in_background(&survey.scope, &survey.upstreams, digest, size).await, size)
        });
        let mut fetches = stream::iter(fetches).buffer_unordered(AT_ONCE);
        while let Some((stored, size)) = fetches.next().await {
            match stored {
                Ok(Stored::Already | Stored::Now) => kept(size),
                Ok(Stored::NoRoom) => missing += 1,
                // The others go on: what is here by the next time need not be fetched again.
                Err(error) => failed = Some(error.into()),
            }
        }
        match (failed, missing) {
            (Some(error), _) => Err(error),
            (None, 0) => Ok(()),
            (None, missing) if self.shared.store.is_before_bucket() => {
                Err(CollectError::Crowded { missing, objects: of_objects })
            }
            (None, missing) => Err(CollectError::Full { missing, objects: of_objects }),
        }
    }

    /// Sees to it that all of `closure` is in the bucket, if there is one: what is in the directory goes as others come.
    pub(super) async fn secure(&self, closure: &Closure) -> Result<(), CollectError> {
        let store = &self.shared.store;
        let content: Vec<(Digest, u64)> = closure.content().map(|(digest, size)| (*digest, size)).collect();
        let objects = content.len() as u64;
        let looks = content.into_iter().map(|(digest, size)| async move { store.secure(&digest, size).await });
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        let mut missing = 0;
        while let Some(secured) = looks.next().await {
            missing += u64::from(secured.map_err(CollectError::Store)? != Secured::There);
        }
        if missing == 0 { Ok(()) } else { Err(CollectError::NotInBucket { missing, objects }) }
    }

    /// Whether a manifest that was looked into is stored. One that is in memory alone is put where it belongs.
    async fn keep_manifest(&self, digest: &Digest) -> Result<Stored, StoreError> {
        if matches!(self.shared.store.holds(digest).await, Ok(Some(_))) {
            return Ok(Stored::Already);
        }
        // What has left memory as well has found no room when it came.
        let Some((manifest, _)) = self.shared.library.look_at(digest).await else { return Ok(Stored::NoRoom) };
        self.shared.store.put(digest, manifest.body.clone()).await.map(|()| Stored::Now)
    }

    /// What an image meant when that was last known here, whoever can be asked. Without a `scope` there is nobody.
    pub(super) async fn known_meaning(&self, image: &ImageRef, scope: Option<&Scope>) -> Option<Digest> {
        match (image.reference(), scope) {
            (Reference::Digest(digest), _) => Some(digest),
            (Reference::Tag(tag), Some(scope)) => {
                self.shared.tags.known(scope, &tag).await.map(|known| *known.digest())
            }
            (Reference::Tag(tag), None) => {
                let record = self.shared.store.tags().read(&image.registry, &image.repository, &tag).await;
                record.map(|record| record.digest)
            }
        }
    }

    /// As much of what `manifests` stand for as is known here, whoever can be asked; for `scope` to serve, if there is one.
    pub(super) async fn closure_here(
        &self,
        manifests: impl IntoIterator<Item = Digest>,
        scope: Option<&Scope>,
        platforms: &[WantedPlatform],
    ) -> Closure {
        let mut closure = Closure::new(manifests, platforms);
        while let Some(pending) = closure.next_manifest() {
            let Some((manifest, _)) = self.shared.library.look_at(&pending.digest).await else { continue };
            // The right to it was its own when it was fetched; a crash may have lost that, and not the pin.
            if let Some(scope) = scope {
                self.shared.authority.recall(scope, &manifest);
            }
            closure.learn(pending, manifest.body.len() as u64, &manifest.view);
        }
        closure
    }
}
