//! The schema of the configuration, by a validator that others have written.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::support::process::run;

/// Whether `jsonschema` of the Python library takes `document` by our schema, which it checks first.
async fn takes(directory: &Path, document: &Value) -> bool {
    let schema = run(Command::new(crate::support::process::weir_binary()).args(["config", "schema"])).await;
    let (schema_file, file) = (directory.join("schema.json"), directory.join("document.json"));
    fs::write(&schema_file, schema).unwrap();
    fs::write(&file, document.to_string()).unwrap();
    let output = Command::new("jsonschema").arg("--instance").args([&file, &schema_file]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("Traceback") && !said.contains("SchemaError"), "{said}");
    output.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_validator_takes_the_sample_and_refuses_slips() {
    let directory = tempfile::tempdir().unwrap();
    let sample = include_str!("../../config/weir.yaml").replace("#|", "");
    let lines: Vec<&str> = sample.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let sample: Value = serde_saphyr::from_str(&lines.join("\n")).unwrap();
    assert!(takes(directory.path(), &sample).await);
    for (pointer, slip) in [
        ("/server/drain_timeout", "5 minutes"),
        ("/server/listen", "localhost:5000"),
        ("/store/max_size", "much"),
        ("/log/format", "xml"),
        ("/registries/docker.io/upstreams/0/url", "ftp://mirror.example.com"),
    ] {
        let mut document = sample.clone();
        *document.pointer_mut(pointer).unwrap() = slip.into();
        assert!(!takes(directory.path(), &document).await, "{pointer}");
    }
    let mut document = sample;
    document["server"]["lisen"] = "127.0.0.1:5000".into();
    assert!(!takes(directory.path(), &document).await, "an unknown key");
}
