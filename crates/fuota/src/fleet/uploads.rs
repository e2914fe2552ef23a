//! Uploaded firmware for the admin interface: catalogued, and for nobody yet (rule 11).

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::Stream;

use super::{Dropping, rollout::Plan};
use crate::{
    Service,
    catalog::{Release, facts_text, firmware_id, signature_text, upload_text},
    db::{FileRow, Op},
    files::Applied,
    registration::invalid,
    requests,
    transfer::unix_now,
    views::{Actor, FirmwareView, ServiceError},
};

/// Where uploads lie among the paths: a folder that the watched place cannot have.
const UPLOADS: &str = "uploads/";
/// The longest title, version, model or file name of an upload, in bytes.
const LONGEST_NAME: usize = 128;

/// What an upload says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The name of its file.
    pub file_name: String,
    /// Its title, where that is not in the name.
    pub name: Option<String>,
    /// Its version, likewise.
    pub version: Option<String>,
    /// The model that it is for.
    pub model: Option<String>,
    /// Notes for people.
    pub notes: Option<String>,
    /// Its detached signature, as `FILE.minisig` holds it.
    pub signature: Option<String>,
}

/// Bytes of an upload that were copied.
#[derive(Debug)]
pub struct UploadedBytes(store::Ingested);

impl UploadedBytes {
    /// Their digest.
    pub(crate) fn digest(&self) -> store::Digest {
        self.0.digest
    }

    /// The same bytes, which lie where they were copied to.
    pub(crate) fn again(&self) -> UploadedBytes {
        UploadedBytes(self.0.clone())
    }
}

impl Service {
    /// Copies the bytes of an upload, which are for nobody yet.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] where they are none, too many, or break off;
    /// [`ServiceError::Unavailable`] where they cannot be written.
    pub async fn take_upload(
        &self,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send,
    ) -> Result<UploadedBytes, ServiceError> {
        let taken = self.0.store.ingest_stream(bytes).await.map_err(|error| match error {
            store::IngestError::Write(_) => ServiceError::Unavailable(error.to_string()),
            _ => invalid("file", error.to_string()),
        })?;
        Ok(UploadedBytes(taken))
    }

    /// Catalogues uploaded bytes (rule 11). The second value says whether that is new: the same
    /// bytes under the same name are not, nor is an earlier request with this key.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`]; [`ServiceError::Conflict`] where an earlier file has this
    /// title and version and other bytes, or the key was used otherwise;
    /// [`ServiceError::Unavailable`].
    pub async fn add_firmware(
        &self,
        upload: Upload,
        UploadedBytes(ingested): UploadedBytes,
        key: Option<&str>,
        actor: &Actor,
    ) -> Result<(FirmwareView, bool), ServiceError> {
        let engine = &self.0;
        check_upload(&upload)?;
        let parts = store::NameParts::parse(&upload.file_name);
        let signature = upload.signature.as_deref().map(str::as_bytes);
        let verdict = engine.store.judge_upload(&ingested, signature);
        let verdict = verdict.map_err(|why| invalid("signature", why))?;
        let Upload { file_name, name, version, model, notes, .. } = upload;
        let row = FileRow {
            id: 0,
            path: format!("{UPLOADS}{file_name}"),
            fingerprint: String::new(),
            digest: ingested.digest,
            size: ingested.size,
            target: String::new(),
            sidecar: upload_text(name, version, model, notes),
            name_title: parts.title,
            name_version: parts.version,
            created_seq: 0,
            created_at: unix_now(),
            removed_seq: None,
            uploaded: true,
            withdrawn: None,
            facts: Some(facts_text(&ingested.facts)),
            signature: Some(signature_text(&verdict)),
        };
        let made = 'made: {
            let mut files = engine.files.lock();
            let wanted = (&row.path, &row.sidecar, &row.signature, row.digest.to_string());
            let request = engine.requests.open(&engine.key, "firmware", key, &wanted)?;
            if request.is_done {
                drop(files);
                let view = self.firmware_one(&firmware_id(&row));
                return view.map(|view| (view, false)).ok_or_else(|| requests::gone("firmware"));
            }
            let present = files.rows.iter().find(|other| {
                other.removed_seq.is_none() && other.uploaded && other.path == row.path
            });
            match present {
                Some(same)
                    if (same.digest, &same.sidecar, &same.signature)
                        == (row.digest, &row.sidecar, &row.signature) =>
                {
                    break 'made Err(firmware_id(same));
                }
                Some(other) => {
                    return Err(ServiceError::Conflict(format!(
                        "{} was uploaded already ({}, this is {}): give this upload another file name",
                        other.path,
                        other.digest.short(),
                        row.digest.short(),
                    )));
                }
                None => {}
            }
            check_conflict(&files.rows, &row)?;
            let mut applied = Applied::default();
            let row = files.add(row, &mut applied);
            applied.ops.push(crate::engine::Engine::audit_by(
                actor,
                &row.path,
                "uploaded",
                Some(row.digest.to_string()),
            ));
            let how = Dropping { deploy: false, hold: HashSet::new(), plan: Plan::all() };
            applied.ops.extend(request.op());
            let (ops, _fleet) = engine.take_in(&mut files, applied, &how);
            Ok((row, engine.keep(ops), request))
        };
        let (row, written, request) = match made {
            Ok(made) => made,
            Err(same) => {
                // The upload that brought it may not be done yet.
                engine.settled().await?;
                return Ok((self.listed(&same)?, false));
            }
        };
        if let Err(error) = written.await {
            engine.files.lock().rows.retain(|other| other.id != row.id);
            // It may have been written again meanwhile.
            drop(engine.db.submit(vec![Op::FileGone(row.id)], None));
            return Err(ServiceError::Unavailable(error.to_string()));
        }
        engine.requests.done(request);
        engine.rebuild_catalog();
        engine.store.need(engine.needed_images());
        engine.reconsider_all().await;
        Ok((self.listed(&firmware_id(&row))?, true))
    }

    fn listed(&self, id: &str) -> Result<FirmwareView, ServiceError> {
        let gone = || ServiceError::Unavailable("the firmware was just removed".into());
        self.firmware_one(id).ok_or_else(gone)
    }

    /// Withdraws firmware, by its id: its bytes are never offered again, and the transfers of
    /// them end.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`].
    pub async fn withdraw_firmware(&self, id: &str, actor: &Actor) -> Result<(), ServiceError> {
        self.0.withdraw(id, actor).await
    }
}

fn check_upload(upload: &Upload) -> Result<(), ServiceError> {
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
    };
    let name = &upload.file_name;
    if !plain(name) || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(invalid(
            "file",
            format!(
                "its file name must be 1 to {LONGEST_NAME} bytes without '/' and without a '.' in front"
            ),
        ));
    }
    for (field, value) in [("name", &upload.name), ("version", &upload.version)] {
        if value.as_deref().is_some_and(|value| !plain(value)) {
            return Err(invalid(field, format!("use 1 to {LONGEST_NAME} bytes of text")));
        }
    }
    if let Some(model) = upload.model.as_deref().filter(|model| !crate::names::is_name(model)) {
        return Err(invalid("model", crate::names::name_problem("model", model)));
    }
    if upload.notes.as_deref().is_some_and(|notes| notes.len() > 4096) {
        return Err(invalid("notes", "more than 4096 bytes".into()));
    }
    Ok(())
}

/// Rule 10: one title and version is one content.
fn check_conflict(rows: &[FileRow], new: &FileRow) -> Result<(), ServiceError> {
    let release = Release::from_row(new);
    let Some(title) = &release.title else { return Ok(()) };
    let live = rows.iter().filter(|row| row.removed_seq.is_none() && row.digest != new.digest);
    for other in live.map(Release::from_row) {
        let same = other.title.as_ref().is_some_and(|other| other.text == title.text)
            && other.version.text == release.version.text;
        if same {
            return Err(ServiceError::Conflict(format!(
                "{} already is {} {} with other bytes ({}, this is {}): give this another version",
                other.path,
                title.text,
                release.version.text,
                other.digest.short(),
                release.digest.short(),
            )));
        }
    }
    Ok(())
}
