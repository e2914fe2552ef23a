//! HTTP/1.1 by hand: one request, one connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::PATIENCE;

/// The admin interface of one daemon.
pub struct Admin {
    address: SocketAddr,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

impl Admin {
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Admin { address, token: token.into() }
    }

    /// The admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// GET, which must succeed.
    pub fn get(&self, path: &str) -> Value {
        let response = self.request("GET", path, None);
        assert_eq!(response.status, 200, "GET {path}: {}", response.body);
        response.json()
    }

    /// The rows of a listing, such as `devices`.
    pub fn rows(&self, listing: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/{listing}"));
        answer[listing].as_array().unwrap_or_else(|| panic!("no rows in {answer}")).clone()
    }

    /// Any request with the token.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let bearer = format!("Authorization: Bearer {}", self.token);
        let host = format!("Host: {}", self.address);
        let body = body.map(Value::to_string);
        self.raw(method, path, &[&host, &bearer], body.as_deref())
    }

    /// A request with exactly these header lines.
    pub fn raw(&self, method: &str, path: &str, headers: &[&str], body: Option<&str>) -> Response {
        let mut stream =
            TcpStream::connect_timeout(&self.address, PATIENCE).expect("admin listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            request.push_str(&format!("{header}\r\n"));
        }
        let form = headers.iter().any(|header| header.starts_with("Content-Type: "));
        if let Some(body) = body.filter(|_| !form) {
            let length = body.len();
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        stream.write_all(request.as_bytes()).expect("request");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("response");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
        assert!(
            !head.to_ascii_lowercase().contains("transfer-encoding: chunked"),
            "this client reads plain bodies only"
        );
        Response { status, head: head.into(), body: body.into() }
    }
}
