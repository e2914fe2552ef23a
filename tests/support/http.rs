//! HTTP/1.1 by hand: one request, one connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::PATIENCE;

const BOUNDARY: &str = "----of-a-test";

/// A chunked body, put together.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        body.push_str(&more[..size]);
        rest = more[size..].strip_prefix("\r\n").expect("the end of a chunk");
        if size == 0 {
            break;
        }
    }
    body
}

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

    /// A header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
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
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { unchunked(body) } else { body.into() };
        Response { status, head: head.into(), body }
    }

    /// POST of a form with one file and these text fields behind it.
    pub fn upload(
        &self,
        path: &str,
        headers: &[&str],
        file_name: &str,
        bytes: &[u8],
        fields: &[(&str, &str)],
    ) -> Response {
        let text = std::str::from_utf8(bytes).expect("this client sends text only");
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\n\r\n{text}\r\n"
        );
        for (name, value) in fields {
            body += &format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        body += &format!("--{BOUNDARY}--\r\n");
        let own = [
            format!("Host: {}", self.address),
            format!("Authorization: Bearer {}", self.token),
            format!("Content-Type: multipart/form-data; boundary={BOUNDARY}"),
            format!("Content-Length: {}", body.len()),
        ];
        let own = own.iter().map(String::as_str);
        let headers: Vec<_> = own.chain(headers.iter().copied()).collect();
        self.raw("POST", path, &headers, Some(&body))
    }
}
