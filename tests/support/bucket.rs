//! A site that watches a bucket, beside a real S3 server in the test's own process.
//!
//! Named by path where it is needed, beside `s3` and `support`.
#![allow(dead_code, reason = "each test uses its own part of this")]

use crate::s3::{self, S3Server};
use crate::support::Site;

/// A server, and a site that watches `s3://firmware/site-a`.
pub struct Bucket {
    pub site: Site,
    pub server: S3Server,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let server = runtime.block_on(S3Server::start());
        let mut site = Site::new();
        site.set("store.url", &format!("\"s3://{}/site-a\"", s3::BUCKET))
            .set("store.s3.endpoint", &format!("\"{}\"", server.endpoint()))
            .set("store.s3.region", "\"garage\"")
            .set("store.s3.access_key_id", &format!("\"{}\"", s3::ACCESS_KEY_ID))
            .set("store.s3.secret_access_key", &format!("\"{}\"", s3::SECRET_ACCESS_KEY))
            .set("store.s3.allow_http", "true");
        Bucket { site, server, runtime }
    }

    /// Puts an object below the prefix, at once and whole.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.server.put(&format!("site-a/{path}"), bytes);
    }

    /// The server is gone, and its connections with it.
    pub fn stop(&mut self) {
        self.runtime.block_on(self.server.stop());
    }

    /// It is back.
    pub fn resume(&mut self) {
        self.runtime.block_on(self.server.resume());
    }
}
