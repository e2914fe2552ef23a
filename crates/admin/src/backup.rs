//! `/api/v1/backup`: a copy of everything at one moment, in a directory of the daemon's machine.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Json, Nothing, Query, Who},
    problem::Problem,
    routes::App,
};

/// Makes a backup in a directory that is not there yet.
pub type Backup = Arc<dyn Fn(PathBuf) -> BackupFuture + Send + Sync>;

/// What [`Backup`] returns.
pub type BackupFuture = Pin<Box<dyn Future<Output = Result<BackupView, BackupError>> + Send>>;

/// A backup that was made.
#[derive(Debug, Serialize)]
pub struct BackupView {
    /// The directory.
    pub path: String,
    /// Images in it.
    pub images: usize,
    /// Their bytes.
    pub image_bytes: u64,
}

/// Why there is none. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The directory cannot be that one.
    #[error("{0}")]
    Path(String),
    /// Another one is being made.
    #[error("another backup is being made; wait for it")]
    Busy,
    /// Something could not be read or written.
    #[error("{0}")]
    Failed(String),
}

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    path: String,
}

/// POST.
pub async fn make(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Problem> {
    if !Path::new(&wanted.path).is_absolute() {
        return Err(Problem::unprocessable(
            "path",
            "must begin with / (the daemon may run elsewhere)",
        ));
    }
    match (app.backup)(PathBuf::from(wanted.path)).await {
        Ok(view) => {
            app.service.note(&actor, "site", "backed up", Some(view.path.clone()));
            Ok((StatusCode::CREATED, axum::Json(view)).into_response())
        }
        Err(BackupError::Path(problem)) => Err(Problem::unprocessable("path", &problem)),
        Err(error @ BackupError::Busy) => {
            Err(Problem::new(StatusCode::CONFLICT, error.to_string()))
        }
        Err(BackupError::Failed(problem)) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, problem))
        }
    }
}
