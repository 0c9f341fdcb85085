//! `/api/v1/images`: what is stored, by the tags that mean it.

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Images;
use crate::admin::problem::Problem;
use crate::admin::upstreams::answer;
use crate::oci::{RegistryHost, RepositoryName};
use crate::pull::StoredImage;

pub(super) async fn list(State(images): State<Images>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (registry, repository) = filter(query.as_deref().unwrap_or_default())?;
    let found = images.pull.stored_images(registry, repository).await;
    let found = found.map_err(|error| Problem::Store(error.to_string()))?;
    Ok(answer(&json!({ "images": found.iter().map(shown).collect::<Vec<_>>() })))
}

/// `registry=docker.io&repository=library`.
fn filter(query: &str) -> Result<(Option<RegistryHost>, Option<RepositoryName>), Problem> {
    let (mut registry, mut repository) = (None, None);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let malformed = |error: &dyn std::fmt::Display| Problem::Malformed(error.to_string());
        match &*key {
            "registry" => registry = Some(value.parse().map_err(|error| malformed(&error))?),
            "repository" => repository = Some(value.parse().map_err(|error| malformed(&error))?),
            other => {
                let words = format!("Images are chosen by `registry` and `repository`, not by `{other}`");
                return Err(Problem::Malformed(words));
            }
        }
    }
    Ok((registry, repository))
}

fn shown(found: &StoredImage) -> Value {
    let StoredImage { image, digest, objects, bytes, of_objects, of_bytes, used_ago, upstream } = found;
    json!({
        "image": image.to_string(),
        "digest": digest,
        "objects": objects,
        "bytes": bytes,
        "of_objects": of_objects,
        "of_bytes": of_bytes,
        "used_seconds_ago": used_ago.map(|ago| ago.as_secs()),
        "upstream": upstream,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_of_parsed_names() {
        let (registry, repository) = filter("registry=Docker.io&repository=library%2Fnginx").unwrap();
        assert_eq!(registry.unwrap().as_str(), "docker.io");
        assert_eq!(repository.unwrap().to_string(), "library/nginx");
        assert_eq!(filter("").unwrap(), (None, None));
        for query in ["registry=a..b", "repository=../x", "repo=a"] {
            assert!(matches!(filter(query), Err(Problem::Malformed(_))), "{query}");
        }
    }
}
