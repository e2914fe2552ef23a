//! An S3 bucket as the place where firmware is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::{self, Path};
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectMeta, ObjectStoreExt as _, RetryConfig,
    StaticCredentialProvider,
};
use tokio::time::Instant;

use super::{Dated, Fingerprint, Listed, Listing};
use crate::settings::{S3Settings, StoreError};

/// Questions for single objects at the same time, where a listing carries no `ETag`.
const HEADS: usize = 8;

/// How far the server's clock may be from ours: with more, signed requests are refused
/// (`RequestTimeTooSkewed`).
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Keys that cannot be used are told of, so many at most in one listing; the others are passed over.
/// Each costs some requests of its own.
const MAX_UNUSABLE: usize = 100;

/// Makes the client, and gives the name of its key; nothing is sent yet.
pub(super) fn open(
    bucket: &str,
    s3: &S3Settings,
) -> Result<(Arc<AmazonS3>, Option<String>), StoreError> {
    // Whoever came first chose the provider, and that is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    if s3.access_key_id.is_some() != s3.secret_access_key.is_some() {
        return Err(StoreError::S3(
            "set access_key_id and secret_access_key together, or neither to use the AWS_* \
             variables"
                .into(),
        ));
    }
    let client = AmazonS3ConfigKey::Client;
    // What it says of proxies and certificates stays.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 4,
            retry_timeout: s3.retry_for,
        })
        .with_config(client(ClientConfigKey::ConnectTimeout), "5 seconds")
        .with_config(client(ClientConfigKey::Timeout), "60 seconds");
    check_endpoint(&builder, s3)?;
    if let Some(endpoint) = &s3.endpoint {
        // The key that goes before the other one.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if s3.allow_http {
        builder = builder.with_allow_http(true);
    }
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    let mut key_id = builder.get_config_value(&AmazonS3ConfigKey::AccessKeyId);
    if let (Some(id), Some(secret)) = (&s3.access_key_id, &s3.secret_access_key) {
        // A session token of the environment belongs to a key of the environment.
        let (id, secret_key) = (id.clone(), secret.clone());
        key_id = Some(id.clone());
        let credential = AwsCredential { key_id: id, secret_key, token: None };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
    }
    let store = builder.build();
    let store = store.map_err(|error| StoreError::S3(super::explain(&error, key_id.as_deref())))?;
    Ok((Arc::new(store), key_id))
}

/// Whether the endpoint may be used, of the settings or else of the environment.
fn check_endpoint(environment: &AmazonS3Builder, s3: &S3Settings) -> Result<(), StoreError> {
    let of = |key| environment.get_config_value(&key);
    let allowed = of(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    // What is neither yes nor no is an error of its own.
    let allowed = allowed.map(|text| text.to_ascii_lowercase());
    let forbidden = matches!(allowed.as_deref(), None | Some("false" | "0" | "off" | "no" | "n"));
    let (endpoint, forbidden, name) = match &s3.endpoint {
        Some(endpoint) => (Some(endpoint.clone()), !s3.allow_http, ""),
        None => (
            of(AmazonS3ConfigKey::S3Endpoint).or_else(|| of(AmazonS3ConfigKey::Endpoint)),
            forbidden && !s3.allow_http,
            " or AWS_ALLOW_HTTP=true",
        ),
    };
    let Some(endpoint) = endpoint else { return Ok(()) };
    let http = endpoint.starts_with("http://");
    if !http && !endpoint.starts_with("https://") {
        return Err(StoreError::S3(format!(
            "endpoint {endpoint:?} must begin with https:// or http://"
        )));
    }
    if http && forbidden {
        return Err(StoreError::S3(format!(
            "endpoint {endpoint:?} is not encrypted: use https://, or set \
             store.s3.allow_http = true{name}"
        )));
    }
    Ok(())
}

/// All objects below `prefix`. `object_store` gives up a whole page of a listing for one key that
/// its paths cannot hold, such as `a//b` or one with control characters. So where that happens
/// pages become smaller until the key stands alone, and the listing goes on behind it.
async fn objects(
    s3: &AmazonS3,
    prefix: &Path,
    unusable: &mut BTreeMap<String, String>,
) -> object_store::Result<Vec<ObjectMeta>> {
    let below = (!prefix.as_ref().is_empty()).then(|| format!("{prefix}/"));
    let mut objects = Vec::new();
    let (mut offset, mut page_token, mut max_keys) = (None, None, None);
    loop {
        let options = PaginatedListOptions {
            offset: offset.clone(),
            page_token: page_token.clone(),
            max_keys,
            ..PaginatedListOptions::default()
        };
        match s3.list_paginated(below.as_deref(), options).await {
            Ok(page) => {
                objects.extend(page.result.objects);
                let before = std::mem::replace(&mut page_token, page.page_token);
                match &page_token {
                    None => return Ok(objects),
                    // It would come again for ever.
                    same if *same == before => {
                        let source = "the server's listing does not go on".into();
                        return Err(Error::Generic { store: "bucket", source });
                    }
                    Some(_) => {}
                }
            }
            Err(Error::InvalidPath { source }) => {
                let (Some(1), Some(key)) = (max_keys, key(&source)) else {
                    max_keys = Some(match max_keys {
                        None => 100,
                        Some(1) => return Err(Error::InvalidPath { source }),
                        Some(keys) => keys / 10,
                    });
                    continue;
                };
                let shown = below.as_deref().and_then(|below| key.strip_prefix(below));
                let shown: String =
                    shown.unwrap_or(&key).escape_debug().filter(|c| !c.is_control()).collect();
                let reason = "its key has empty or relative parts or control characters, which \
                              cannot be used: rename it";
                if unusable.len() < MAX_UNUSABLE {
                    unusable.insert(shown, reason.to_owned());
                }
                (offset, page_token, max_keys) = (Some(key), None, None);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The key that no path can hold.
fn key(error: &path::Error) -> Option<String> {
    match error {
        path::Error::EmptySegment { path } | path::Error::BadSegment { path, .. } => {
            Some(path.clone())
        }
        _ => None,
    }
}

/// Lists all objects below `prefix`.
pub(super) async fn list(
    store: &AmazonS3,
    prefix: &Path,
    key_id: Option<&str>,
) -> object_store::Result<Listing> {
    let now = SystemTime::now();
    let mut listing = Listing::default();
    let all = objects(store, prefix, &mut listing.unusable).await?;
    let objects: Vec<(String, Result<ObjectMeta, Error>, Instant)> = stream::iter(all)
        .filter_map(|meta| async { relative(&meta, prefix).map(|path| (path, meta)) })
        // Some servers leave the ETag out of a listing, and tell it when they are asked. Size and
        // time are the last resort; then it is the time of an answer, since that of a listing
        // may have parts of seconds.
        .map(|(path, meta)| async {
            if meta.e_tag.is_some() {
                return Some((path, Ok(meta), Instant::now()));
            }
            match store.head(&meta.location).await {
                Err(Error::NotFound { .. }) => None,
                head => Some((path, head, Instant::now())),
            }
        })
        .buffer_unordered(HEADS)
        .filter_map(|object| async { object })
        .boxed()
        .collect()
        .await;
    let all = objects.len();
    let mut failed = 0;
    for (path, meta, seen) in objects {
        let meta = match meta {
            Ok(meta) => meta,
            // One that may not be looked at is its own trouble; many are the server's.
            Err(error) => {
                failed += 1;
                if failed > HEADS || failed == all {
                    return Err(error);
                }
                let reason = format!("it cannot be looked at: {}", super::explain(&error, key_id));
                listing.unknown.push(path.clone());
                listing.unusable.insert(path, reason);
                continue;
            }
        };
        let changed = SystemTime::from(meta.last_modified);
        let dated = meta.e_tag.is_none().then_some(Dated { changed, seen });
        // What stands for a time that was not told.
        if dated.is_some() && changed == SystemTime::UNIX_EPOCH {
            let reason = "the server gives neither ETag nor Last-Modified for it, so that nothing \
                          tells when it changes: let the server, or the proxy before it, give one";
            listing.unusable.insert(path, reason.to_owned());
            continue;
        }
        let e_tag = meta.e_tag.unwrap_or_else(|| {
            let time = meta.last_modified.timestamp_micros();
            format!("{}-{time}", meta.size)
        });
        let listed = Listed {
            size: meta.size,
            fingerprint: Fingerprint(e_tag),
            age: now.duration_since(changed).ok().map(|age| age.saturating_sub(SKEW)),
            dated,
        };
        listing.files.insert(path, listed);
    }
    // Consoles mark an empty folder by an object of no bytes, named as the folder.
    let folders: Vec<String> = listing
        .files
        .iter()
        .filter(|(path, listed)| {
            listed.size == 0 && crate::paths::folder(path) == crate::paths::Folder::Open
        })
        .map(|(path, _)| path.clone())
        .collect();
    for folder in folders {
        listing.files.remove(&folder);
    }
    Ok(listing)
}

/// The path below the prefix; none for the prefix itself.
fn relative(meta: &ObjectMeta, prefix: &Path) -> Option<String> {
    let mut parts = meta.location.prefix_match(prefix)?.peekable();
    parts.peek()?;
    let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
    Some(parts.join("/"))
}
