//! The error codes of the distribution specification and the document that carries them.

use serde::Serialize;

/// A code of distribution-spec "Error Codes" that a read-only registry can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The blob is unknown to the registry.
    BlobUnknown,
    /// The digest is malformed.
    DigestInvalid,
    /// A request outside the grammar: an unreadable tag or query.
    ManifestInvalid,
    /// The manifest is unknown to the repository.
    ManifestUnknown,
    /// The repository name is malformed.
    NameInvalid,
    /// The registry or repository is unknown.
    NameUnknown,
    /// A policy forbids it.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// A rate limit is used up.
    TooManyRequests,
    /// Something behind Weir is out of order. Outside the specification's list, as registries do for 5xx.
    Unavailable,
}

impl ErrorCode {
    /// The code as it stands in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// The body of an error answer: `{"errors":[{"code":…,"message":…,"detail":…}]}`.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorDocument {
    errors: [ErrorEntry; 1],
}

#[derive(Debug, Clone, Serialize)]
struct ErrorEntry {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<serde_json::Value>,
}

impl ErrorDocument {
    /// A document with one error. Clients print `message` to people: say what happened and what fixes it.
    pub fn new(code: ErrorCode, message: impl Into<String>, detail: Option<serde_json::Value>) -> Self {
        Self { errors: [ErrorEntry { code: code.as_str(), message: message.into(), detail }] }
    }

    /// The document as JSON.
    pub fn to_json(&self) -> String {
        // Strings and JSON values always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_shape_of_the_specification() {
        let json = ErrorDocument::new(ErrorCode::BlobUnknown, "No such blob", None).to_json();
        assert_eq!(json, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"No such blob"}]}"#);
    }
}
