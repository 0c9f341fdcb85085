//! `store`: which kind it is, and its bounds.

use std::time::Duration;

use super::section::Section;
use super::{Reading, bucket, keys, scalars};
use crate::config::store::StoreConfig;

/// Where content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Disk,
    S3,
}

/// Reads `store`.
pub(super) fn read(section: &Section<'_>, reading: &mut Reading<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let kinds = [("disk", Kind::Disk), ("s3", Kind::S3)];
    let kind = section.value("kind", |text| scalars::word(text, &kinds)).unwrap_or(Kind::Disk);
    let bucket = section.has("s3").then(|| bucket::read(&section.section("s3", &keys::S3), reading)).flatten();
    match (kind, section.has("s3")) {
        (Kind::S3, false) => {
            let message = format!("`{}` is `s3`, but `{}` is missing", section.name("kind"), section.name("s3"));
            section.wrong("kind", message, "Write it as `s3: { bucket: images, region: eu-west-1 }`");
        }
        (Kind::Disk, true) => {
            let warning = format!("`{}` has no effect without `{}: s3`", section.name("s3"), section.name("kind"));
            reading.warnings.push(warning);
        }
        (Kind::S3, true) | (Kind::Disk, false) => {}
    }
    StoreConfig {
        path: section.value("path", scalars::path).unwrap_or(default.path),
        max_size: section.value("max_size", scalars::positive_size_limit).unwrap_or(default.max_size),
        keep_free: section.value("keep_free", scalars::size_limit).unwrap_or(default.keep_free),
        verify_interval: section.value("verify_interval", scalars::duration).unwrap_or(default.verify_interval),
        scrub_rate: section.value("scrub_rate", scalars::rate).unwrap_or(default.scrub_rate),
        max_age: lifetime(section, "max_age"),
        max_idle: lifetime(section, "max_idle"),
        bucket: bucket.filter(|_| kind == Kind::S3),
    }
}

/// No limit is spelled by leaving it out, and by `0`.
fn lifetime(section: &Section<'_>, key: &'static str) -> Option<Duration> {
    section.value(key, scalars::duration).filter(|lifetime| !lifetime.is_zero())
}
