//! What was used through one replica in one hour, as lines of JSON. Pure: the time goes in as an argument.
//!
//! A page is written again and again while its hour lasts, each time as a whole. It names images rather than blobs, so that
//! whoever makes room knows what belongs together, for all blobs that were not used through an image by themselves.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::oci::Digest;
use crate::store::eviction::{Image, RepositoryKey};

/// The most bytes that a page takes, roughly: what is used beyond that in one hour is not noted.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// How many bytes a digest takes in a line, with its size.
const BYTES_PER_DIGEST: usize = 128;
const HOUR: u64 = 60 * 60;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// An image was served.
    Image(ImageUse),
    /// A blob or manifest was used by itself.
    Blob(Digest),
    /// A tag was resolved: the last of a repository, whichever tag it was.
    Resolved {
        /// With its registry.
        repository: String,
        manifest: Digest,
        /// In seconds since 1970.
        at: u64,
    },
}

/// An image that was served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct ImageUse {
    /// With its registry.
    pub(in crate::store) repository: String,
    /// Its digest and size in bytes.
    pub(in crate::store) manifest: (Digest, u64),
    /// The blobs that make it, with their sizes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::store) blobs: Vec<(Digest, u64)>,
    /// The manifests that an index names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::store) manifests: Vec<Digest>,
}

impl ImageUse {
    /// `image`, served for `repository`.
    pub(in crate::store) fn of(repository: String, image: Image) -> Self {
        let Image { manifest, blobs, manifests, .. } = image;
        Self { repository, manifest, blobs, manifests }
    }

    /// The same, to whoever chooses what goes.
    pub(super) fn into_image(self) -> Image {
        let Self { repository, manifest, blobs, manifests } = self;
        Image { repository: RepositoryKey::of(Path::new(&repository)), manifest, blobs, manifests }
    }
}

/// The page of the hour, as far as it goes.
#[derive(Debug, Default)]
pub(in crate::store) struct Journal {
    images: HashMap<(String, Digest), ImageUse>,
    /// Everything that one of the images holds.
    in_images: HashSet<Digest>,
    blobs: HashSet<Digest>,
    resolved: HashMap<String, (u64, Digest)>,
    /// Roughly, what the lines take.
    bytes: usize,
    /// The hour of the page, counted from 1970; `None` until it is written for the first time.
    hour: Option<u64>,
}

impl Journal {
    /// An image is served.
    pub(in crate::store) fn image(&mut self, image: ImageUse) {
        let size = image.repository.len() + BYTES_PER_DIGEST * (2 + image.blobs.len() + image.manifests.len());
        let key = (image.repository.clone(), image.manifest.0);
        if !self.images.contains_key(&key) && self.takes(size) {
            self.in_images.insert(image.manifest.0);
            self.in_images.extend(image.blobs.iter().map(|(digest, _)| *digest));
            self.images.insert(key, image);
        }
    }

    /// A blob or manifest is used.
    pub(in crate::store) fn blob(&mut self, digest: &Digest) {
        if !self.in_images.contains(digest) && !self.blobs.contains(digest) && self.takes(BYTES_PER_DIGEST) {
            self.blobs.insert(*digest);
        }
    }

    /// A tag is resolved, `at` so many seconds after 1970.
    pub(in crate::store) fn resolved(&mut self, repository: String, at: u64, manifest: &Digest) {
        if let Some(last) = self.resolved.get_mut(&repository) {
            *last = (*last).max((at, *manifest));
        } else if self.takes(repository.len() + 2 * BYTES_PER_DIGEST) {
            self.resolved.insert(repository, (at, *manifest));
        }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= MOST_BYTES;
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// What to write `since_1970`: the page of this hour; and before it that of the last one, as a whole, in a new hour.
    pub(super) fn page(&mut self, since_1970: Duration) -> Vec<(u64, Bytes)> {
        let hour = since_1970.as_secs() / HOUR;
        // What was noted before the first page belongs to it.
        let last = self.hour.replace(hour).unwrap_or(hour);
        if last == hour {
            return vec![(hour, self.text())];
        }
        let ended = std::mem::replace(self, Self { hour: Some(hour), ..Self::default() });
        vec![(last, ended.text()), (hour, self.text())]
    }

    fn text(&self) -> Bytes {
        let images = self.images.values().cloned().map(Line::Image);
        let alone = self.blobs.difference(&self.in_images).copied().map(Line::Blob);
        let resolved = self.resolved.iter().map(|(repository, (at, manifest))| Line::Resolved {
            repository: repository.clone(),
            manifest: *manifest,
            at: *at,
        });
        let mut text = Vec::with_capacity(self.bytes);
        for line in images.chain(alone).chain(resolved) {
            // Strings and numbers: they always serialise.
            text.extend(serde_json::to_vec(&line).unwrap_or_default());
            text.push(b'\n');
        }
        if text.is_empty() {
            // Servers do not agree on what to say about nothing.
            text.push(b'\n');
        }
        text.into()
    }
}

/// The lines of a page. What cannot be read, such as what a later release notes, is passed over.
pub(super) fn lines(page: &[u8]) -> impl Iterator<Item = Line> {
    page.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_secs(12 * HOUR);

    fn image(number: u8) -> ImageUse {
        let digest = |part: u8| Digest::of(&[number, part]);
        ImageUse {
            repository: "reg.test/app".to_owned(),
            manifest: (digest(0), 10),
            blobs: vec![(digest(1), 100)],
            manifests: Vec::new(),
        }
    }

    fn read(pages: &[(u64, Bytes)]) -> Vec<(u64, Vec<Line>)> {
        pages.iter().map(|(hour, text)| (*hour, lines(text).collect())).collect()
    }

    #[test]
    fn what_is_noted_comes_out_of_the_page_and_once() {
        let mut journal = Journal::default();
        let (alone, image) = (Digest::of(b"alone"), image(1));
        for _ in 0..3 {
            journal.image(image.clone());
            journal.blob(&alone);
            // It is part of the image.
            journal.blob(&image.blobs[0].0);
        }
        journal.resolved("reg.test/app".to_owned(), 5, &alone);
        journal.resolved("reg.test/app".to_owned(), 7, &image.manifest.0);
        journal.resolved("reg.test/app".to_owned(), 6, &alone);
        let resolved = Line::Resolved { repository: "reg.test/app".to_owned(), manifest: image.manifest.0, at: 7 };
        let expected = [(12, vec![Line::Image(image), Line::Blob(alone), resolved])];
        assert_eq!(read(&journal.page(NOON)), expected);
        assert_eq!(read(&journal.page(NOON + Duration::from_secs(HOUR - 1))), expected, "it is written as a whole");
    }

    #[test]
    fn each_hour_has_its_page_and_an_empty_one_says_that_the_replica_lives() {
        let mut journal = Journal::default();
        assert_eq!(read(&journal.page(NOON)), [(12, vec![])]);
        let (first, second) = (Digest::of(b"1"), Digest::of(b"2"));
        journal.blob(&first);
        let next = NOON + Duration::from_secs(HOUR);
        assert_eq!(read(&journal.page(next)), [(12, vec![Line::Blob(first)]), (13, vec![])]);
        journal.blob(&second);
        assert_eq!(read(&journal.page(next)), [(13, vec![Line::Blob(second)])]);
    }

    #[test]
    fn a_page_does_not_grow_for_ever() {
        let mut journal = Journal::default();
        for number in 0..200_000_u32 {
            journal.blob(&Digest::of(&number.to_le_bytes()));
        }
        let pages = journal.page(NOON);
        assert!(pages[0].1.len() <= MOST_BYTES && pages[0].1.len() > MOST_BYTES / 2);
    }

    #[test]
    fn lines_of_a_later_release_are_passed_over() {
        let digest = Digest::of(b"x");
        let page = format!("{{\"dream\":1}}\n{{\"blob\":\"{digest}\"}}\n\n{{\"blo");
        assert_eq!(lines(page.as_bytes()).collect::<Vec<_>>(), [Line::Blob(digest)]);
    }
}
