//! The page: files made from `ui/` by a build that is checked in, embedded here.
//!
//! Each file has a name that stays, so a browser asks whether it changed (`ETag`), and gets the
//! form of it that it can unpack.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest as _, Sha256};

/// Nothing from outside, nothing inline, no frame around it, no text that becomes a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types fuotad-live";

struct File {
    path: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
    brotli: &'static [u8],
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:literal) => {
        File {
            path: $path,
            kind: $kind,
            plain: include_bytes!(concat!("../ui/dist/", $name)),
            gzip: include_bytes!(concat!("../ui/dist/", $name, ".gz")),
            brotli: include_bytes!(concat!("../ui/dist/", $name, ".br")),
        }
    };
}

const FILES: [File; 6] = [
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/app.js", "app.js", "text/javascript; charset=utf-8"),
    file!("/live.js", "live.js", "text/javascript; charset=utf-8"),
    file!("/app.css", "app.css", "text/css; charset=utf-8"),
    file!("/icon.svg", "icon.svg", "image/svg+xml"),
    file!("/licenses.txt", "licenses.txt", "text/plain; charset=utf-8"),
];

/// One of each of [`FILES`].
static TAGS: LazyLock<[String; FILES.len()]> = LazyLock::new(|| {
    std::array::from_fn(|index| hex::encode(&Sha256::digest(FILES[index].plain)[..16]))
});

/// The page's files, for everybody: there is nothing in them to hide.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    (0..FILES.len()).fold(Router::new(), |router, index| {
        router.route(FILES[index].path, get(move |request: Request| serve(index, request)))
    })
}

async fn serve(index: usize, request: Request) -> Response {
    let file = &FILES[index];
    let (coding, bytes) = match Coding::of(request.headers()) {
        Coding::Brotli => (Some("br"), file.brotli),
        Coding::Gzip => (Some("gzip"), file.gzip),
        Coding::None => (None, file.plain),
    };
    // Weak: the forms differ in bytes and mean the same.
    let tag = format!("W/\"{}\"", TAGS[index]);
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_TYPE, file.kind);
    set(header::CACHE_CONTROL, "no-cache");
    set(header::VARY, "Accept-Encoding");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if let Some(coding) = coding {
        set(header::CONTENT_ENCODING, coding);
    }
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let known =
        known.is_some_and(|tags| tags.split(',').any(|one| one.trim() == tag || one.trim() == "*"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    match known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, bytes).into_response(),
    }
}

/// How an answer is packed.
#[derive(Debug, PartialEq, Eq)]
enum Coding {
    Brotli,
    Gzip,
    None,
}

impl Coding {
    /// The smallest that the client names and does not refuse with `q=0`.
    fn of(headers: &HeaderMap) -> Coding {
        let named = |coding: &str| {
            let values = headers.get_all(header::ACCEPT_ENCODING).iter();
            let values = values.filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|one| {
                let mut parts = one.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let refused = parts
                    .filter_map(|part| part.strip_prefix("q="))
                    .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0));
                name.eq_ignore_ascii_case(coding) && !refused
            })
        };
        if named("br") {
            Coding::Brotli
        } else if named("gzip") {
            Coding::Gzip
        } else {
            Coding::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::service::Service as _;

    async fn ask(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = hyper_util::service::TowerToHyperService::new(routes::<()>());
        let Ok(response) = service.call(request.body(axum::body::Body::empty()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, body.to_vec())
    }

    #[tokio::test]
    async fn each_file_comes_as_the_client_can_read_it_and_once() {
        for file in &FILES {
            let (status, headers, body) = ask(file.path, &[]).await;
            assert_eq!((status, body.as_slice()), (StatusCode::OK, file.plain), "{}", file.path);
            assert_eq!(headers["content-type"], file.kind);
            assert!(headers["content-security-policy"].to_str().unwrap().contains("'none'"));
            let all = [("accept-encoding", "gzip, deflate, br, zstd")];
            let (_, packed, body) = ask(file.path, &all).await;
            assert_eq!(
                (&packed["content-encoding"], body.as_slice()),
                (&"br".parse().unwrap(), file.brotli)
            );
            let (_, packed, body) = ask(file.path, &[("accept-encoding", "gzip, br;q=0")]).await;
            assert_eq!(
                (&packed["content-encoding"], body.as_slice()),
                (&"gzip".parse().unwrap(), file.gzip)
            );
            let tag = headers["etag"].to_str().unwrap();
            let (status, _, body) = ask(file.path, &[("if-none-match", tag)]).await;
            assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0));
            let (status, ..) = ask(file.path, &[("if-none-match", "W/\"another\"")]).await;
            assert_eq!(status, StatusCode::OK);
        }
    }

    #[tokio::test]
    async fn the_whole_page_is_light() {
        let packed: usize = FILES.iter().map(|file| file.brotli.len()).sum();
        assert!(packed < 150_000, "{packed} bytes");
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for file in FILES.iter().filter(|file| file.path != "/licenses.txt") {
            let text = std::str::from_utf8(file.plain).unwrap();
            // Names of XML namespaces are no addresses.
            let text = text.replace("http://www.w3.org/", "");
            for scheme in ["http://", "https://", "eval(", "new Function"] {
                assert!(!text.contains(scheme), "{scheme} in {}", file.path);
            }
        }
    }
}
