//! The command line: what it prints and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::support::certificates::Authority;
use crate::support::process::{WeirProcess, weir_binary};
use crate::support::weir::{REGISTRY, config_for};

/// How `weir` ends when its configuration cannot be used.
const BAD_CONFIGURATION: Option<i32> = Some(3);

/// Runs `weir` in an empty directory, without the environment's say.
fn weir(arguments: &[&str]) -> Output {
    weir_with(&[], arguments)
}

fn weir_with(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let environment = environment.iter().copied();
    Command::new(weir_binary())
        .args(arguments)
        .current_dir(directory.path())
        .env_remove("WEIR_CONFIG")
        .envs(environment)
        .output()
        .unwrap()
}

/// What `weir config check` says about this configuration.
fn check(text: &str) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.yaml");
    fs::write(&file, text).unwrap();
    let output = weir(&["config", "check", "-c", &file.display().to_string()]);
    let said = said(&output);
    (output, said)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing from:\n{text}");
    }
}

#[tokio::test]
async fn who_verifies_nothing_is_warned_by_the_check_at_start_and_in_metrics() {
    let directory = tempfile::tempdir().unwrap();
    let upstream =
        |verified: bool| json!({ "url": "https://registry.test", "name": "hub", "insecure_skip_verify": !verified });
    let registries = |verified| json!({ REGISTRY: { "upstreams": [upstream(verified)] } });
    let config = |verified| json!({ "registries": registries(verified), "log": { "level": "info" } });
    let file = directory.path().join("weir.yaml");
    let warning = "insecure_skip_verify` is true: whoever stands between may pose as https://registry.test/";
    for (verified, warnings) in [(true, 0), (false, 1)] {
        let config = config_for(&directory.path().join("store"), config(verified)).to_string();
        let (output, said) = check(&config);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches(warning).count(), warnings, "{said}");
        fs::write(&file, config).unwrap();
        let mut weir = WeirProcess::serve(&file).await;
        let labels = [("registry", REGISTRY), ("upstream", "hub")];
        assert_eq!(weir.metric("weir_upstream_unverified", &labels).await, warnings as u64);
        weir.process.signal(rustix::process::Signal::TERM);
        weir.process.ended().await;
        assert_eq!(weir.process.output().matches(warning).count(), warnings, "{}", weir.process.output());
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_a_suggestion() {
    let (output, said) = check("server:\n  listne: 127.0.0.1:5000\n");
    assert_eq!(output.status.code(), BAD_CONFIGURATION, "{said}");
    assert_says(&said, &["weir.yaml:2:3", "listne", "id you mean", "listen"]);
}

#[test]
fn a_wrong_value_is_shown_with_its_place() {
    let (output, said) = check("tags:\n  fresh: soon\n");
    assert_eq!(output.status.code(), BAD_CONFIGURATION, "{said}");
    assert_says(&said, &["weir.yaml:2:10", "soon"]);
}

#[test]
fn text_that_is_no_yaml_is_shown_with_its_place() {
    let (output, said) = check("server: {\n");
    assert_eq!(output.status.code(), BAD_CONFIGURATION, "{said}");
    assert_says(&said, &["weir.yaml:"]);
}

#[test]
fn credentials_without_authentication_are_refused_until_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    fs::write(&password, "s3cret").unwrap();
    let registry = format!(
        "registries:\n  reg.test:\n    upstreams:\n      - url: https://reg.test\n        credentials:\n          \
         - {{ match: '**', username: ci, password_file: {} }}\n",
        password.display()
    );
    let (output, said) = check(&registry);
    assert_eq!(output.status.code(), BAD_CONFIGURATION, "{said}");
    assert_says(&said, &["reg.test", "allow_unauthenticated"]);
    let (output, said) = check(&format!("{registry}    allow_unauthenticated: true\n"));
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn serve_refuses_what_check_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.yaml");
    fs::write(&file, "no_such_key: 1\n").unwrap();
    let output = weir(&["serve", "-c", &file.display().to_string()]);
    assert_eq!(output.status.code(), BAD_CONFIGURATION);
    assert_says(&said(&output), &["weir.yaml:1:1", "no_such_key"]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let output = weir(&["config", "check", "-c", "/nonexistent/weir.yaml"]);
    assert_eq!(output.status.code(), BAD_CONFIGURATION);
    assert_says(&said(&output), &["/nonexistent/weir.yaml"]);
}

#[test]
fn environment_variables_override_files_and_are_checked_too() {
    let output = weir_with(&[("WEIR__SERVER__LISTEN", "nowhere")], &["config", "check"]);
    assert_eq!(output.status.code(), BAD_CONFIGURATION);
    assert_says(&said(&output), &["WEIR__SERVER__LISTEN"]);
    let output = weir_with(&[("WEIR__SERVER__LISTEN", "127.0.0.1:0")], &["config", "check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn several_files_are_merged() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("one.yaml"), "server: { default_registry: reg.test }\nbuiltin_registries: false\n").unwrap();
    fs::write(path("two.yaml"), "registries: { reg.test: { upstreams: [{ url: 'https://reg.test' }] } }\n").unwrap();
    let both = weir(&["config", "check", "-c", &path("one.yaml"), "-c", &path("two.yaml")]);
    assert_eq!(both.status.code(), Some(0), "{}", said(&both));
    let one = weir(&["config", "check", "-c", &path("one.yaml")]);
    assert_eq!(one.status.code(), BAD_CONFIGURATION, "the default registry is nowhere configured");
}

#[test]
fn the_default_configuration_is_accepted_and_so_is_the_sample() {
    let default = weir(&["config", "default"]);
    assert_eq!(default.status.code(), Some(0));
    let (output, text) = check(&String::from_utf8(default.stdout).unwrap());
    assert_eq!(output.status.code(), Some(0), "{text}");
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/weir.yaml");
    let (output, text) = check(&fs::read_to_string(sample).unwrap());
    assert_eq!(output.status.code(), Some(0), "{text}");
}

#[test]
fn the_schema_is_printed_as_it_stands_beside_the_sample() {
    let output = weir(&["config", "schema"]);
    assert_eq!(output.status.code(), Some(0));
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/config/weir.schema.json");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed == fs::read_to_string(kept).unwrap(), "run `weir config schema > config/weir.schema.json`");
}

#[test]
fn mirror_config_prints_what_each_client_reads() {
    let print = |client| {
        let output = weir(&["mirror-config", "--for", client, "--url", "http://weir.test:5000"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let containerd = print("containerd");
    assert_says(
        &containerd,
        &[
            "docker.io/hosts.toml",
            "server = \"https://registry-1.docker.io\"",
            "[host.\"http://weir.test:5000\"]",
            "capabilities = [\"pull\", \"resolve\"]",
            "quay.io/hosts.toml",
        ],
    );
    let podman = print("podman");
    assert_says(
        &podman,
        &["[[registry]]", "[[registry.mirror]]", "location = \"weir.test:5000/docker.io\"", "insecure = true"],
    );
    let docker = print("docker");
    assert_says(&docker, &["\"registry-mirrors\"", "http://weir.test:5000"]);
}

#[test]
fn mistakes_on_the_command_line_are_told_apart_from_mistakes_in_the_configuration() {
    let output = weir(&["no-such-command"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let version = weir(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_says(&said(&version), &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn mirror_config_knows_the_address_from_the_configuration_unless_it_is_every_one() {
    let run = |listen| weir_with(&[("WEIR__SERVER__LISTEN", listen)], &["mirror-config", "--for", "containerd"]);
    let output = run("127.0.0.1:5017");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_says(&said(&output), &["[host.\"http://127.0.0.1:5017\"]"]);
    for listen in ["0.0.0.0:5000", "'[::]:5000'"] {
        let output = run(listen);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert_says(&said(&output), &["--url http://HOST:PORT", "server.external_url"]);
    }
}

#[test]
fn a_password_in_the_url_for_clients_is_refused_and_not_repeated() {
    let output = weir(&["mirror-config", "--for", "docker", "--url", "http://u:s3cret@h.test"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_says(&said(&output), &["`--url` cannot be used", "a user name and a password"]);
    assert!(!said(&output).contains("s3cret"), "{}", said(&output));
}

#[test]
fn mirror_config_says_where_written_files_belong() {
    for (client, words) in [
        ("containerd", "belong into /etc/containerd/certs.d"),
        ("podman", "is read only from"),
        ("docker", "belong into /etc/docker/certs.d"),
    ] {
        let output = weir(&["mirror-config", "--for", client, "--out", "made"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_says(&said(&output), &["below made", words]);
    }
}

/// What `serve` logs, `check` says.
#[test]
fn variables_that_name_no_proxy_are_warned_about() {
    for (name, value) in [("HTTP_PROXY", "::::"), ("ALL_PROXY", "socks5://u:s3cret@proxy.test:1080")] {
        let output = weir_with(&[(name, value)], &["config", "check"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_says(&said(&output), &[&format!("Warning: {name} is no address of an HTTP proxy"), "1 warning"]);
        assert!(!said(&output).contains("s3cret"), "{}", said(&output));
    }
}

#[test]
fn check_says_what_it_read() {
    let output = weir(&["config", "check"]);
    assert_says(&said(&output), &["from built-in defaults, no file"]);
    let output = weir_with(&[("WEIR__SERVER__LISTEN", "127.0.0.1:0")], &["config", "check"]);
    assert_says(&said(&output), &["and 1 environment variable"]);
}

#[tokio::test]
async fn the_log_says_what_the_banner_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.yaml");
    let store = directory.path().join("store");
    let text = format!(
        "server: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nstore: {{ path: {} }}\n",
        store.display()
    );
    fs::write(&file, text).unwrap();
    let weir = WeirProcess::serve(&file).await;
    let output = weir.process.output();
    let event = output.lines().find(|line| line.contains("listening")).unwrap();
    assert_says(
        event,
        &[
            &format!("\"configuration\":\"{}\"", file.display()),
            "\"registries\":\"docker.io, ghcr.io",
            &format!("\"store\":\"{}\"", store.display()),
            &format!("--url http://{}\"", weir.registry),
        ],
    );
}

#[test]
fn files_that_tls_cannot_use_are_named_by_check_and_by_serve() {
    let directory = tempfile::tempdir().unwrap();
    let issued = Authority::new().for_server().write(directory.path());
    let file = directory.path().join("weir.yaml");
    let run = |command: &[&str], certificate: &Path| {
        let tls = json!({ "cert_file": certificate, "key_file": issued.key });
        let listen = "127.0.0.1:0";
        let store = directory.path().join("store");
        let config = json!({
            "server": { "listen": listen, "tls": tls, "external_url": "https://other.test" },
            "admin": { "listen": listen },
            "store": { "path": store, "keep_free": 0 },
        });
        fs::write(&file, config.to_string()).unwrap();
        weir(&[command, &["-c", &file.display().to_string()]].concat())
    };
    let output = run(&["config", "check"], &issued.certificate);
    assert!(output.status.success(), "{}", said(&output));
    assert_says(&said(&output), &["tls.crt", "not valid for other.test", "warnings"]);

    let output = run(&["config", "check"], &issued.key);
    assert_eq!(output.status.code(), BAD_CONFIGURATION);
    assert_says(&said(&output), &["`server.tls.cert_file`", "tls.key", "holds no certificate"]);
    let output = run(&["serve"], &issued.key);
    assert_eq!(output.status.code(), Some(1));
    assert_says(&said(&output), &["`server.tls.cert_file`", "tls.key", "holds no certificate"]);
}
