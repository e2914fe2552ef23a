//! Whom a deployment is for, and in which order targets count (rule 12).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::labels::Expression;
use crate::{
    device::DeviceState,
    names::{is_name, name_problem},
};

/// Whom a deployment is for. Devices that come to it later are meant too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This device.
    Device(String),
    /// The members of this group.
    Group(String),
    /// The devices of this model.
    Model(String),
    /// The devices whose labels make the expression true.
    Labels(Expression),
    /// Every device.
    All,
    /// The devices that a rollback lists, which is that of this deployment.
    Rollback(i64),
}

/// A target as REST names it: one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetView {
    /// Every device; only `true` makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// One device, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The members of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The devices of a model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// An expression over labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The devices of a rollback, by the deployment that is rolled back. Never taken in.
    #[serde(skip_serializing_if = "Option::is_none", skip_deserializing)]
    pub rollback: Option<String>,
}

impl Target {
    /// From what an operator named.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn from_view(view: &TargetView) -> Result<Target, String> {
        let named = |what: &str, name: &String| match is_name(name) {
            true => Ok(name.clone()),
            false => Err(name_problem(what, name)),
        };
        match view {
            TargetView {
                all: Some(true),
                device: None,
                group: None,
                model: None,
                labels: None,
                ..
            } => Ok(Target::All),
            TargetView {
                all: None,
                device: Some(id),
                group: None,
                model: None,
                labels: None,
                ..
            } => named("device id", id).map(Target::Device),
            TargetView {
                all: None,
                device: None,
                group: Some(name),
                model: None,
                labels: None,
                ..
            } => named("group", name).map(Target::Group),
            TargetView {
                all: None,
                device: None,
                group: None,
                model: Some(name),
                labels: None,
                ..
            } => named("model", name).map(Target::Model),
            TargetView {
                all: None,
                device: None,
                group: None,
                model: None,
                labels: Some(text),
                ..
            } => Expression::parse(text).map(Target::Labels),
            _ => Err("name exactly one of {\"all\":true}, device, group, model or labels".into()),
        }
    }

    /// As REST shows it.
    pub fn view(&self) -> TargetView {
        let mut view = TargetView::default();
        match self {
            Target::Device(id) => view.device = Some(id.clone()),
            Target::Group(name) => view.group = Some(name.clone()),
            Target::Model(name) => view.model = Some(name.clone()),
            Target::Labels(expression) => view.labels = Some(expression.to_string()),
            Target::All => view.all = Some(true),
            Target::Rollback(of) => view.rollback = Some(of.to_string()),
        }
        view
    }

    /// From its text form; `None` where that makes no sense.
    pub fn from_text(text: &str) -> Option<Target> {
        Some(match text.split_once(':') {
            Some(("device", id)) => Target::Device(id.into()),
            Some(("group", name)) => Target::Group(name.into()),
            Some(("model", name)) => Target::Model(name.into()),
            Some(("labels", text)) => Target::Labels(Expression::parse(text).ok()?),
            Some(("rollback", of)) => Target::Rollback(of.parse().ok()?),
            _ if text == "all" => Target::All,
            _ => return None,
        })
    }

    /// Rule 12: the lower goes first. A rollback counts as the deployment that it takes back.
    pub fn tier(&self) -> u8 {
        match self {
            Target::Device(_) => 0,
            Target::Group(_) => 1,
            Target::Model(_) => 2,
            Target::Labels(_) => 3,
            Target::All | Target::Rollback(_) => 4,
        }
    }

    /// Whether a device is meant; for a rollback its list says it.
    pub fn means(&self, id: &str, device: &DeviceState) -> bool {
        match self {
            Target::Device(name) => name == id,
            Target::Group(name) => device.groups.contains(name),
            Target::Model(name) => device.model.as_ref() == Some(name),
            Target::Labels(expression) => expression.matches(&device.labels),
            Target::All => true,
            Target::Rollback(_) => false,
        }
    }
}

impl From<&store::Target> for Target {
    fn from(target: &store::Target) -> Self {
        match target {
            store::Target::All => Target::All,
            store::Target::Group(name) => Target::Group(name.clone()),
            store::Target::Model(name) => Target::Model(name.clone()),
            store::Target::Device(id) => Target::Device(id.clone()),
        }
    }
}

/// `all`, `device:ID`, `group:NAME`, `model:NAME`, `labels:EXPRESSION`, `rollback:DEPLOYMENT`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Device(id) => write!(f, "device:{id}"),
            Target::Group(name) => write!(f, "group:{name}"),
            Target::Model(name) => write!(f, "model:{name}"),
            Target::Labels(expression) => write!(f, "labels:{expression}"),
            Target::All => f.write_str("all"),
            Target::Rollback(of) => write!(f, "rollback:{of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_views_round_trip() {
        for text in
            ["all", "device:a:b", "group:g", "model:m", "labels:a=b and not c", "rollback:7"]
        {
            let target = Target::from_text(text).expect(text);
            assert_eq!(target.to_string(), text);
            if !matches!(target, Target::Rollback(_)) {
                assert_eq!(Target::from_view(&target.view()).as_ref(), Ok(&target));
            }
        }
        assert!(Target::from_text("everybody").is_none());
    }

    #[test]
    fn exactly_one_target_is_named() {
        let refused = |json: &str| {
            serde_json::from_str::<TargetView>(json)
                .map_err(|error| error.to_string())
                .and_then(|view| Target::from_view(&view))
                .expect_err(json)
        };
        for json in ["{}", r#"{"all":false}"#, r#"{"all":true,"group":"g"}"#] {
            assert!(refused(json).contains("exactly one"), "{json}");
        }
        assert!(refused(r#"{"group":"a b"}"#).contains("not a name"));
        assert!(refused(r#"{"labels":"a="}"#).contains("a value"));
        assert!(refused(r#"{"rollback":"7"}"#).contains("unknown field"));
        assert!(refused(r#"{"everybody":1}"#).contains("unknown field"));
    }
}
