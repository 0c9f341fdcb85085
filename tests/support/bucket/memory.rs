//! A bucket in memory: as much of S3 as a store of objects needs.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use parking_lot::Mutex;

use super::Operation;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By path, the bucket included: with the time when they were written.
    objects: Mutex<BTreeMap<String, (Bytes, SystemTime)>>,
    /// By number: the parts by theirs.
    uploads: Mutex<BTreeMap<u64, BTreeMap<u64, Bytes>>>,
    numbers: Mutex<u64>,
}

impl Memory {
    pub(super) fn object(&self, path: &str) -> Option<Bytes> {
        self.objects.lock().get(path).map(|(body, _)| body.clone())
    }

    pub(super) fn plant(&self, path: &str, body: Bytes) {
        self.objects.lock().insert(path.to_owned(), (body, SystemTime::now()));
    }

    pub(super) fn age(&self, by: Duration, is_meant: impl Fn(&str) -> bool) {
        let mut objects = self.objects.lock();
        objects.iter_mut().filter(|(path, _)| is_meant(path)).for_each(|(_, (_, written))| *written -= by);
    }

    pub(super) fn snatch(&self, path: &str) {
        self.objects.lock().remove(path);
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.objects.lock().keys().cloned().collect()
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.uploads.lock().len()
    }

    pub(super) fn answer(&self, operation: Operation, parts: &http::request::Parts, body: Bytes) -> Response<Bytes> {
        let path = parts.uri.path();
        let number = |name: &str| {
            let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
            pairs.into_iter().find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let upload = number("uploadId").unwrap_or_default();
        match operation {
            Operation::Get | Operation::Head => {
                let mut answer = self.get(parts, path);
                // The body of an answer to HEAD is left out, and its length with it.
                let length = answer.body().len().into();
                answer.headers_mut().insert(header::CONTENT_LENGTH, length);
                answer
            }
            Operation::Put => {
                self.plant(path, body);
                tagged(Bytes::new())
            }
            Operation::Delete => {
                self.snatch(path);
                status(StatusCode::NO_CONTENT)
            }
            Operation::List => self.list(parts),
            Operation::Create => {
                let mut numbers = self.numbers.lock();
                *numbers += 1;
                self.uploads.lock().insert(*numbers, BTreeMap::new());
                xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{numbers}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            Operation::Part => match self.uploads.lock().get_mut(&upload) {
                Some(parts) => {
                    parts.insert(number("partNumber").expect("a part has a number"), body);
                    tagged(Bytes::new())
                }
                None => status(StatusCode::NOT_FOUND),
            },
            Operation::Complete => match self.uploads.lock().remove(&upload) {
                Some(parts) => {
                    let whole = parts.values().fold(BytesMut::new(), |mut whole, part| {
                        whole.extend_from_slice(part);
                        whole
                    });
                    self.plant(path, whole.freeze());
                    xml("<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>")
                }
                None => status(StatusCode::NOT_FOUND),
            },
            Operation::Abort => {
                self.uploads.lock().remove(&upload);
                status(StatusCode::NO_CONTENT)
            }
        }
    }

    fn get(&self, parts: &http::request::Parts, path: &str) -> Response<Bytes> {
        let Some(object) = self.object(path) else { return status(StatusCode::NOT_FOUND) };
        let length = object.len();
        let range = parts.headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let Some((start, end)) = range.and_then(|range| range.split_once('-')) else { return tagged(object) };
        let start: usize = start.parse().expect("ranges begin somewhere");
        if start >= length {
            return status(StatusCode::RANGE_NOT_SATISFIABLE);
        }
        let end = end.parse().map_or(length, |end: usize| (end + 1).min(length));
        let mut answer = tagged(object.slice(start..end));
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let content_range = format!("bytes {start}-{}/{length}", end - 1);
        answer.headers_mut().insert(header::CONTENT_RANGE, content_range.parse().expect("a range is a header"));
        answer
    }

    fn list(&self, parts: &http::request::Parts) -> Response<Bytes> {
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let prefix = pairs.into_iter().find(|(key, _)| key == "prefix").map(|(_, prefix)| prefix.into_owned());
        let bucket = format!("{}/", parts.uri.path().trim_end_matches('/'));
        let objects = self.objects.lock();
        let within = objects.iter().filter_map(|(path, object)| Some((path.strip_prefix(&bucket)?, object)));
        let listed = within.filter(|(key, _)| key.starts_with(prefix.as_deref().unwrap_or_default()));
        let contents = listed.map(|(key, (body, written))| {
            let written = in_utc(*written);
            let modified = format!("<LastModified>{written}</LastModified>");
            format!("<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"e\"</ETag>{modified}</Contents>", body.len())
        });
        xml(&format!("<ListBucketResult>{}</ListBucketResult>", contents.collect::<String>()))
    }
}

fn tagged(body: Bytes) -> Response<Bytes> {
    Response::builder().header(header::ETAG, "\"e\"").body(body).expect("an answer")
}

fn xml(text: &str) -> Response<Bytes> {
    Response::new(Bytes::from(text.to_owned()))
}

fn status(status: StatusCode) -> Response<Bytes> {
    Response::builder().status(status).body(Bytes::new()).expect("an answer")
}

/// A moment as S3 writes it.
fn in_utc(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Howard Hinnant's way from days to dates: years begin in March, eras of 400 years at year 0.
    let from_0000 = days + 719_468;
    let (era, of_era) = (from_0000 / 146_097, from_0000 % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}
