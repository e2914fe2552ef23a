//! What happened and what happens for the admin interface: timelines, the audit, events; and the
//! freeze, and why a device is offered what it is.

use std::sync::Arc;

use super::{
    events::{Alerts, From, Listener},
    views::{AuditView, FreezeView, HappeningView, WhyView},
};
use crate::{
    Service,
    views::{Actor, ServiceError},
};

impl Service {
    /// The role of a user, by name and password.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] where too many logins failed or are being checked;
    /// [`ServiceError::NotFound`] where there is no such user, or the password is another.
    pub async fn log_in(
        &self,
        name: &str,
        password: &str,
        address: Option<std::net::SocketAddr>,
    ) -> Result<crate::UserRole, ServiceError> {
        self.0.log_in(name, password, address).await.map_err(|(text, later)| match later {
            true => ServiceError::Unavailable(text),
            false => ServiceError::NotFound(text),
        })
    }

    /// Every change from there on.
    pub fn listen(&self, from: From<'_>) -> Listener {
        Listener::new(Arc::clone(&self.0), from)
    }

    /// What operators are to hear, from now on.
    pub fn alerts(&self) -> Alerts {
        Alerts::new(Arc::clone(&self.0))
    }

    /// Writes into the audit what somebody did beside the updates: to a session, to retained
    /// messages. Where that cannot be written, the log has it.
    pub fn note(&self, actor: &Actor, subject: &str, action: &'static str, detail: Option<String>) {
        let line = crate::engine::Engine::audit_by(actor, subject, action, detail.clone());
        if let Err(error) = self.0.db.submit(vec![line], None) {
            tracing::error!(by = actor.shown(), subject, action, detail, %error, "not in the audit");
        }
    }

    /// Whether offers of the site are stopped.
    pub fn frozen(&self) -> FreezeView {
        let frozen = self.0.fleet.lock().frozen.clone();
        FreezeView {
            frozen: frozen.is_some(),
            at: frozen.as_ref().map(|frozen| frozen.at),
            by: frozen.map(|frozen| frozen.by),
        }
    }

    /// Stops all offers of the site, or lets them go on. What runs finishes.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] where it is done and not written.
    pub async fn freeze(&self, frozen: bool, actor: &Actor) -> Result<FreezeView, ServiceError> {
        self.0.freeze(frozen, actor).await?;
        Ok(self.frozen())
    }

    /// What a device should run, and why it is or is not offered it.
    pub fn why(&self, id: &str) -> Option<WhyView> {
        let device = self.0.registry.get(id)?;
        let (sentence, deployment, state) = self.0.why(&device);
        Some(WhyView {
            device: id.into(),
            sentence,
            deployment: deployment.map(|id| id.to_string()),
            state: state.map(|state| state.name().to_owned()),
        })
    }

    /// What happened to a device, the newest first: lines with a lower number than `before`.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], [`ServiceError::Unavailable`].
    pub async fn timeline(
        &self,
        device: &str,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<HappeningView>, ServiceError> {
        if self.0.registry.get(device).is_none() {
            return Err(ServiceError::NotFound(format!("there is no device {device}")));
        }
        let rows = self.0.db.timeline(device, before.unwrap_or(i64::MAX), limit).await;
        let rows = rows.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        let view = |row: crate::db::TimelineRow| HappeningView {
            id: row.id.to_string(),
            at: row.at,
            action: row.action,
            detail: row.detail,
            deployment: row.deployment.map(|id| id.to_string()),
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// Who did what, the newest first: lines with a lower number than `before`.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`].
    pub async fn audit(
        &self,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<AuditView>, ServiceError> {
        let rows = self.0.db.audit(before.unwrap_or(i64::MAX), limit).await;
        let rows = rows.map_err(|error| ServiceError::Unavailable(error.to_string()))?;
        let view = |row: crate::db::AuditRow| AuditView {
            id: row.id.to_string(),
            at: row.at,
            actor: row.actor,
            origin: row.origin,
            subject: row.subject,
            action: row.action,
            detail: row.detail,
        };
        Ok(rows.into_iter().map(view).collect())
    }
}
