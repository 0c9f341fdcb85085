//! A bucket in memory: as much of S3 as a store of objects needs.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use parking_lot::Mutex;

use super::Operation;

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By path, the bucket included.
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// By number: the parts by theirs.
    uploads: Mutex<BTreeMap<u64, BTreeMap<u64, Bytes>>>,
    numbers: Mutex<u64>,
}

impl Memory {
    pub(super) fn object(&self, path: &str) -> Option<Bytes> {
        self.objects.lock().get(path).cloned()
    }

    pub(super) fn plant(&self, path: &str, body: Bytes) {
        self.objects.lock().insert(path.to_owned(), body);
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
        let within = objects.iter().filter_map(|(path, body)| Some((path.strip_prefix(&bucket)?, body)));
        let listed = within.filter(|(key, _)| key.starts_with(prefix.as_deref().unwrap_or_default()));
        let contents = listed.map(|(key, body)| {
            let modified = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>";
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
