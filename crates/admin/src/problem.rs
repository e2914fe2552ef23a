//! Errors as `application/problem+json`, RFC 9457.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fuota::{ImportError, RowProblem, ServiceError};
use serde::Serialize;

/// An error that a client can act on.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<&'static str>,
    rows: Vec<RowProblem>,
}

/// The members of RFC 9457, section 3.1, and two of our own.
#[derive(Serialize)]
struct Body<'a> {
    /// `about:blank`: the status says what kind it is, and `title` is its phrase.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Which field of the request is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    /// Which rows of an import are meant.
    #[serde(skip_serializing_if = "<[RowProblem]>::is_empty")]
    rows: &'a [RowProblem],
}

impl Problem {
    /// A problem with one sentence: what was wrong and, where that helps, what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Problem { status, detail: detail.into(), field: None, rows: Vec::new() }
    }

    /// The status, for tests.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// 400.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 422 for one field of the request.
    pub fn unprocessable(field: &'static str, problem: &str) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Problem {
            status,
            detail: format!("{field} {problem}"),
            field: Some(field),
            rows: Vec::new(),
        }
    }

    /// 503: it may be possible later.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        match error {
            ServiceError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, detail),
            ServiceError::Conflict(_) => Self::new(StatusCode::CONFLICT, detail),
            ServiceError::Invalid { field, .. } => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Problem { field: Some(field), ..Self::new(status, detail) }
            }
            ServiceError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        let detail = error.to_string();
        match error {
            ImportError::Rows(rows) => {
                Problem { rows, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
            }
            ImportError::Service(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            field: self.field,
            rows: &self.rows,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"fuotad\""),
                );
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            // The rest of the body is not read, so the connection cannot go on.
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
