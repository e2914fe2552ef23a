//! `/api/v1/firmware`: every file that was dropped or uploaded, the refused and held ones with
//! the reason.

use std::{io, time::Duration};

use axum::{
    Json,
    extract::{FromRequest as _, Multipart, Request, State, multipart::Field},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use fuota::{FirmwareView, StoreView, Upload, UploadedBytes};
use futures_util::{Stream, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    extract::{Id, Key, Nothing, Query, Who},
    form::Meter,
    page::{self, made},
    problem::Problem,
    routes::App,
};

/// Which page.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// One page of files.
#[derive(Debug, Serialize)]
pub struct ListView {
    firmware: Vec<FirmwareView>,
    /// The `after` of the next page.
    next: Option<String>,
}

/// GET: one page, in the order of the ids.
pub async fn list(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ListView>, Problem> {
    let limit = page::limit(query.limit)?;
    let (firmware, next) =
        page::of(app.service.firmware(), query.after.as_deref(), limit, |file| &file.id);
    Ok(Json(ListView { firmware, next }))
}

/// GET one.
pub async fn one(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<FirmwareView>, Problem> {
    app.service
        .firmware_one(&id)
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("there is no firmware {id:?}")))
}

/// How long an upload may bring nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest text field, in bytes.
const MAX_TEXT: usize = 8192;

/// POST: looks at the place where firmware is dropped now, and answers when that is done.
pub async fn rescan(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
) -> Result<Json<StoreView>, Problem> {
    Ok(Json(app.service.rescan().await?))
}

/// POST: catalogues the image of a form with `file`, and `name`, `version`, `model` and `notes`
/// where the image does not say it; `signature` is the text of its `FILE.minisig`. 201, or 200
/// where it was there already.
pub async fn upload(
    State(app): State<App>,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
    Key(key): Key,
    request: Request,
) -> Result<Response, Problem> {
    let (request, meter) = Meter::count(request);
    let unusable = |problem: &dyn std::fmt::Display| {
        let text = || Problem::bad_request(format!("the form cannot be used: {problem}"));
        meter.problem().unwrap_or_else(text)
    };
    let mut form = Multipart::from_request(request, &app)
        .await
        .map_err(|rejection| unusable(&rejection.body_text()))?;
    let (mut upload, mut bytes) = (Upload::default(), None::<UploadedBytes>);
    while let Some(field) = next(form.next_field()).await?.map_err(|error| unusable(&error))? {
        meter.gave();
        let name = field.name().unwrap_or_default().to_owned();
        let place = match &*name {
            "file" if bytes.is_none() => {
                upload.file_name = field.file_name().unwrap_or_default().to_owned();
                bytes = Some(app.service.take_upload(pieces(field, &meter)).await?);
                continue;
            }
            "name" => &mut upload.name,
            "version" => &mut upload.version,
            "model" => &mut upload.model,
            "notes" => &mut upload.notes,
            "signature" => &mut upload.signature,
            "file" => return Err(Problem::bad_request("the form has two files")),
            _ => {
                return Err(Problem::bad_request(format!(
                    "the form has a field {name:?}; it takes file, name, version, model, notes and \
                     signature"
                )));
            }
        };
        *place = Some(text(field, &meter).await?).filter(|text| !text.is_empty());
    }
    let Some(bytes) = bytes else {
        return Err(Problem::bad_request("the form has no field \"file\" with the image"));
    };
    let (view, is_new) = app.service.add_firmware(upload, bytes, key.as_deref(), &actor).await?;
    let location = [(header::LOCATION, format!("/api/v1/firmware/{}", view.id))];
    Ok((made(is_new), location, Json(view)).into_response())
}

/// DELETE one: its bytes are withdrawn for good, and the transfers of them end.
pub async fn withdraw(
    State(app): State<App>,
    Id(id): Id,
    Query(Nothing {}): Query<Nothing>,
    Who(actor): Who,
) -> Result<StatusCode, Problem> {
    app.service.withdraw_firmware(&id, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Waits for more of the body, for a while.
async fn next<T>(more: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(SILENCE, more).await.map_err(|_| {
        let text = format!("the body brought nothing for {} s", SILENCE.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, text)
    })
}

/// The bytes of a file, as they come.
fn pieces(field: Field<'_>, meter: &Meter) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(field, move |mut field| async move {
        match tokio::time::timeout(SILENCE, field.chunk()).await {
            Ok(Ok(Some(piece))) => {
                meter.gave();
                Ok(Some((piece, field)))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    })
}

/// The text of a field, which must be short.
async fn text(field: Field<'_>, meter: &Meter) -> Result<String, Problem> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut text = Vec::new();
    let mut pieces = std::pin::pin!(pieces(field, meter));
    let broken = |error: io::Error| Problem::bad_request(format!("{name} cannot be read: {error}"));
    while let Some(piece) = pieces.try_next().await.map_err(broken)? {
        text.extend_from_slice(&piece);
        if text.len() > MAX_TEXT {
            return Err(Problem::bad_request(format!("{name} is longer than {MAX_TEXT} bytes")));
        }
    }
    String::from_utf8(text).map_err(|_| Problem::bad_request(format!("{name} is not text")))
}
