//! Addresses of upstreams and of this server: what makes a URL acceptable as one.

use url::{Position, Url};

/// Why a text is no acceptable address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// It is no URL at all.
    #[error("it is not a URL with a scheme and a host")]
    Unparsable,
    /// Neither `http` nor `https`.
    #[error("the scheme must be `http` or `https`")]
    Scheme,
    /// It holds a user name or a password.
    #[error("a user name and a password must not stand in it")]
    UserInfo,
    /// It has a query or a fragment.
    #[error("nothing may follow the path")]
    AfterPath,
    /// It has a path where none is possible.
    #[error("it must end after the host and port")]
    Path,
}

/// The address of an upstream: the part before `/v2/`, which may have a path.
pub fn upstream_url(text: &str) -> Result<Url, InvalidUrl> {
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        // Without a scheme, `user:password@host` reads as a URL of the scheme `user`.
        _ if text.contains('@') => return Err(InvalidUrl::UserInfo),
        Ok(_) => return Err(InvalidUrl::Scheme),
        Err(_) => return Err(InvalidUrl::Unparsable),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidUrl::UserInfo);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(InvalidUrl::Unparsable);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidUrl::AfterPath);
    }
    Ok(url)
}

/// The address at which clients reach this server: `/v2/` is at its root, so it has no path.
pub fn external_url(text: &str) -> Result<Url, InvalidUrl> {
    let url = upstream_url(text)?;
    if url.path() == "/" { Ok(url) } else { Err(InvalidUrl::Path) }
}

/// The address of a proxy, perhaps with a user name. A password does not stand there.
pub fn proxy_url(text: &str) -> Result<Url, InvalidUrl> {
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url,
        _ if text.contains('@') => return Err(InvalidUrl::UserInfo),
        // `proxy:3128` reads as a URL of the scheme `proxy`.
        Ok(_) => return Err(InvalidUrl::Scheme),
        Err(_) => return Err(InvalidUrl::Unparsable),
    };
    match &url {
        url if url.password().is_some() => Err(InvalidUrl::UserInfo),
        url if url.host_str().is_none_or(str::is_empty) => Err(InvalidUrl::Unparsable),
        url if url.path() != "/" => Err(InvalidUrl::Path),
        url if url.query().is_some() || url.fragment().is_some() => Err(InvalidUrl::AfterPath),
        _ => Ok(url),
    }
}

/// `scheme://host:port` without the slash that [`Url`] prints after it.
pub fn origin(url: &Url) -> &str {
    &url[..Position::AfterPort]
}

/// `host` or `host:port`.
pub fn authority(url: &Url) -> &str {
    &url[Position::BeforeHost..Position::AfterPort]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_may_have_a_path_but_no_secret() {
        assert!(upstream_url("https://mirror.example.com/hub").is_ok());
        assert_eq!(upstream_url("https://user:pass@example.com"), Err(InvalidUrl::UserInfo));
        for text in ["user:pass@example.com", "//user:pass@example.com", "ftp://user@example.com", "https://u:a/b@c.d"]
        {
            assert_eq!(upstream_url(text), Err(InvalidUrl::UserInfo), "{text}");
        }
        assert!(upstream_url("https://example.com/@scope").is_ok());
        assert_eq!(upstream_url("https://example.com/?a=b"), Err(InvalidUrl::AfterPath));
        assert_eq!(upstream_url("https://example.com/#a"), Err(InvalidUrl::AfterPath));
        assert_eq!(upstream_url("ftp://example.com"), Err(InvalidUrl::Scheme));
        assert_eq!(upstream_url("example.com"), Err(InvalidUrl::Unparsable));
        assert_eq!(upstream_url("https://"), Err(InvalidUrl::Unparsable));
    }

    #[test]
    fn a_proxy_may_have_a_user_but_neither_password_nor_path() {
        assert_eq!(proxy_url("http://ci@proxy.corp:3128").unwrap().username(), "ci");
        assert!(proxy_url("https://[::1]:3128/").is_ok());
        for (text, error) in [
            ("http://ci:pw@proxy.corp:3128", InvalidUrl::UserInfo),
            ("ci:pw@proxy.corp:3128", InvalidUrl::UserInfo),
            ("socks5://proxy.corp", InvalidUrl::Scheme),
            ("proxy.corp:3128", InvalidUrl::Scheme),
            ("http://proxy.corp/x", InvalidUrl::Path),
            ("http://proxy.corp/?x", InvalidUrl::AfterPath),
            ("http://", InvalidUrl::Unparsable),
        ] {
            assert_eq!(proxy_url(text), Err(error), "{text}");
        }
    }

    #[test]
    fn this_server_is_at_the_root_of_its_host() {
        let url = external_url("http://weir.example.com:5000").unwrap();
        assert_eq!(origin(&url), "http://weir.example.com:5000");
        assert_eq!(authority(&url), "weir.example.com:5000");
        assert_eq!(external_url("https://example.com/weir"), Err(InvalidUrl::Path));
    }
}
