//! What telemetry says about the firmware.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialect::{Report, ReportedState, json};

/// What telemetry says about the firmware: an object, an object with `values`, or an array of
/// those, of which the last one counts.
pub fn report(payload: &[u8]) -> Option<Report> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Values<'a> {
        #[serde(borrow)]
        current_fw_version: Option<&'a RawValue>,
        #[serde(borrow)]
        fw_state: Option<&'a RawValue>,
        #[serde(borrow)]
        fw_error: Option<&'a RawValue>,
        #[serde(borrow)]
        values: Option<&'a RawValue>,
    }
    fn add<'a>(report: &mut Option<Report>, values: &Values<'a>) {
        let text = |raw: Option<&'a RawValue>| json::text(raw?.get());
        let inner = values.values.map(RawValue::get).filter(|raw| raw.starts_with('{'));
        if let Some(inner) = inner.and_then(|raw| serde_json::from_str(raw).ok())
            && let Values { values: None, .. } = inner
        {
            add(report, &inner);
        }
        if let Some(version) = text(values.current_fw_version) {
            report.get_or_insert_default().version = Some(version.into_owned());
        }
        let state = match text(values.fw_state).as_deref() {
            Some("DOWNLOADED") => ReportedState::Downloaded,
            Some("VERIFIED") => ReportedState::Verified,
            Some("UPDATING") => ReportedState::Updating,
            Some("FAILED") => {
                let reason = text(values.fw_error).filter(|reason| !reason.is_empty());
                ReportedState::Failed(
                    reason.map_or("the device says so".into(), |it| it.into_owned()),
                )
            }
            // The version says whether it is updated; the others come before the first block.
            _ => return,
        };
        report.get_or_insert_default().state = Some(state);
    }
    let mut said = None;
    if payload.trim_ascii_start().first() == Some(&b'[') {
        let all: Vec<&RawValue> = serde_json::from_slice(payload).ok()?;
        for raw in all {
            // A list would be taken for the members in their order.
            if raw.get().starts_with('{')
                && let Ok(values) = serde_json::from_str(raw.get())
            {
                add(&mut said, &values);
            }
        }
    } else {
        add(&mut said, &serde_json::from_slice(payload).ok()?);
    }
    said
}
