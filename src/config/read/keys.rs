//! Every key there is, in one table: readers check against it, tests hold the sample and the reference page to it.

use super::section::{Keys, Refusal};

/// The top level.
pub(in crate::config) const ROOT: Keys = Keys {
    known: &["server", "admin", "store", "tags", "registries", "builtin_registries", "log"],
    refused: &[(
        "equivalents",
        Refusal::NotOffered,
        "List the equivalent registries as further `upstreams` of one registry instead",
    )],
};

/// `server`.
pub(in crate::config) const SERVER: Keys = Keys {
    known: &["listen", "external_url", "default_registry", "drain_timeout", "max_connections", "sendfile", "tls"],
    refused: &[],
};

/// `server.tls`.
pub(in crate::config) const TLS: Keys = Keys { known: &["cert_file", "key_file", "client_ca_file"], refused: &[] };

/// `admin`.
pub(in crate::config) const ADMIN: Keys = Keys {
    known: &["listen"],
    refused: &[(
        "token_file",
        Refusal::NotOffered,
        "The admin listener only answers questions; keep it on an address that only operators reach",
    )],
};

/// `store`.
pub(in crate::config) const STORE: Keys = Keys {
    known: &["kind", "path", "max_size", "keep_free", "verify_interval"],
    refused: &[("s3", Refusal::NotOffered, "Use `kind: disk` with `path`")],
};

/// `tags`.
pub(in crate::config) const TAGS: Keys =
    Keys { known: &["fresh", "max_stale", "not_found", "on_upstream_not_found", "immutable"], refused: &[] };

/// One entry of `registries`.
pub(in crate::config) const REGISTRY: Keys =
    Keys { known: &["aliases", "access", "allow_unauthenticated", "upstreams"], refused: &[] };

/// One item of a registry's `upstreams`.
pub(in crate::config) const UPSTREAM: Keys = Keys {
    known: &["name", "url", "capabilities", "credentials", "allow_private", "realm_hosts", "ca_file"],
    refused: &[
        ("username", Refusal::NotOffered, "Put it into an item of `credentials`, with `match: '**'`"),
        ("password", Refusal::InlineSecret, "Use an item of `credentials` with `password_file` or `password_env`"),
    ],
};

/// One item of an upstream's `credentials`.
pub(in crate::config) const CREDENTIAL: Keys = Keys {
    known: &["match", "username", "password_file", "password_env"],
    refused: &[(
        "password",
        Refusal::InlineSecret,
        "Put it into a file and name that as `password_file`, or into an environment variable named by `password_env`",
    )],
};

/// `log`.
pub(in crate::config) const LOG: Keys = Keys { known: &["level", "format"], refused: &[] };

/// All of them, each with its place: `<host>` and `[]` stand for what the operator chooses.
#[cfg(test)]
pub(in crate::config) const ALL: [(&str, &Keys); 10] = [
    ("", &ROOT),
    ("server", &SERVER),
    ("server.tls", &TLS),
    ("admin", &ADMIN),
    ("store", &STORE),
    ("tags", &TAGS),
    ("registries.<host>", &REGISTRY),
    ("registries.<host>.upstreams[]", &UPSTREAM),
    ("registries.<host>.upstreams[].credentials[]", &CREDENTIAL),
    ("log", &LOG),
];
