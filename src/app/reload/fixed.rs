//! What keeps its value until the process is started anew: how it listens and where it stores.

use crate::config::{AdminConfig, BucketConfig, Config, ServerConfig, StoreConfig};

/// Puts the values in force into `config` where they cannot change, and names the keys that wanted them to.
///
/// Every field is named here, so that a new one does not compile until somebody has decided about it.
pub(super) fn hold(config: &mut Config, in_force: &Config) -> Vec<&'static str> {
    let Config { server, admin, store, tags: _, registries: _, log: _, warnings: _ } = config;
    let ServerConfig {
        listen,
        external_url: _,
        default_registry: _,
        drain_timeout: _,
        max_connections: _,
        sendfile: _,
        tls,
    } = server;
    let AdminConfig { listen: admin_listen, token: _ } = admin;
    let StoreConfig {
        path,
        max_size: _,
        keep_free: _,
        verify_interval: _,
        scrub_rate: _,
        max_age: _,
        max_idle: _,
        bucket,
    } = store;

    let mut held = Vec::new();
    held.extend(keep(listen, &in_force.server.listen, "server.listen"));
    held.extend(keep(tls, &in_force.server.tls, "server.tls"));
    held.extend(keep(admin_listen, &in_force.admin.listen, "admin.listen"));
    held.extend(keep(path, &in_force.store.path, "store.path"));
    held.extend(keep_bucket(bucket, in_force.store.bucket.as_ref()));
    held
}

/// A bucket stays the one that it is. Who to be to it may change, as keys are replaced from time to time, and so may how it
/// is used.
fn keep_bucket(wanted: &mut Option<BucketConfig>, in_force: Option<&BucketConfig>) -> Option<&'static str> {
    match (&*wanted, in_force) {
        (None, None) => return None,
        (Some(wanted), Some(in_force)) if wanted.is_same_bucket(in_force) => return None,
        _ => {}
    }
    let key = if wanted.is_some() == in_force.is_some() { "store.s3" } else { "store.kind" };
    *wanted = in_force.cloned();
    Some(key)
}

fn keep<T: Clone + PartialEq>(wanted: &mut T, in_force: &T, key: &'static str) -> Option<&'static str> {
    (wanted != in_force).then(|| {
        wanted.clone_from(in_force);
        key
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BucketCredentials, SendFile, TlsConfig};

    #[test]
    fn a_bucket_stays_the_one_that_it_is_and_may_get_other_credentials() {
        let with = |s3: &str| Config::from_yaml(&format!("store: {{ kind: s3, s3: {{ {s3} }} }}")).unwrap();
        let (disk, images, other) = (Config::default(), with("bucket: images"), with("bucket: other"));
        for (wanted, in_force, held) in [
            (&images, &images, vec![]),
            (&other, &images, vec!["store.s3"]),
            (&disk, &images, vec!["store.kind"]),
            (&images, &disk, vec!["store.kind"]),
        ] {
            let mut wanted = wanted.clone();
            assert_eq!(hold(&mut wanted, in_force), held);
            assert_eq!(wanted.store.bucket, in_force.store.bucket);
        }
        let mut wanted = images.clone();
        let role = BucketCredentials::WebIdentity { role: "r".into(), token_file: "t".into(), session: "s".into() };
        wanted.store.bucket.as_mut().unwrap().credentials = role.clone();
        assert_eq!(hold(&mut wanted, &images), [""; 0]);
        assert_eq!(wanted.store.bucket.unwrap().credentials, role);
        let mut wanted = with("bucket: images, max_size: 1GiB, redirect: true");
        assert_eq!(hold(&mut wanted, &images), [""; 0]);
        let bucket = wanted.store.bucket.unwrap();
        assert_eq!((bucket.max_size, bucket.redirect), (Some(1 << 30), true));
    }

    #[test]
    fn listeners_and_the_place_of_the_store_keep_their_values() {
        let in_force = Config::default();
        let mut config = Config::from_yaml(
            "server: { listen: 127.0.0.1:1, max_connections: 7, sendfile: off }\nadmin: { listen: 127.0.0.1:2 }\nstore: { path: /new, max_size: 1GiB }",
        )
        .unwrap();
        assert_eq!(hold(&mut config, &in_force), ["server.listen", "admin.listen", "store.path"]);
        assert_eq!(config.server.listen, in_force.server.listen);
        assert_eq!(config.admin.listen, in_force.admin.listen);
        assert_eq!(config.store.path, in_force.store.path);
        assert_eq!((config.server.max_connections, config.server.sendfile), (7, SendFile::Off));
        assert_ne!(config.store.max_size, in_force.store.max_size);
        assert_eq!(hold(&mut config, &in_force), [""; 0]);

        let files = TlsConfig { cert_file: "crt".into(), key_file: "key".into(), client_ca_file: None };
        config.server.tls = Some(files);
        assert_eq!(hold(&mut config, &in_force), ["server.tls"]);
        assert_eq!(config.server.tls, None);
    }
}
