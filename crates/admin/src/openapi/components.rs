//! The shapes of bodies and answers.

use fuota::FirmwareState;
use serde_json::{Map, Value, json};

use super::{
    operation::problem,
    schema::{
        TOKEN_ID, about, between, boolean, component, count, digest, list, map, maybe, name, none,
        number, object, one_of, pattern, text, time,
    },
};

const ROLES: [&str; 4] = ["device", "service", "operator", "admin"];
/// No control characters: labels, passwords, tokens.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// All schemas, by name.
pub fn schemas() -> Value {
    let mut all = Map::new();
    for part in [devices(), users(), firmware(), deployments(), site(), broker()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

/// Text of so many characters without control characters.
fn plain(minimum: u64, maximum: u64) -> Value {
    json!({"type": "string", "pattern": PLAIN, "minLength": minimum, "maxLength": maximum})
}

fn names() -> Value {
    json!({"type": "array", "items": name(), "maxItems": 64})
}

fn labels() -> Value {
    json!({
        "type": "object", "propertyNames": name(), "maxProperties": 64,
        "additionalProperties": plain(0, 256),
    })
}

fn model_or_none() -> Value {
    pattern("^([A-Za-z0-9][A-Za-z0-9._:-]{0,127})?$")
}

/// A device's token as an operator gives it: 128 bits at least.
fn token() -> Value {
    plain(16, 1024)
}

fn password() -> Value {
    plain(8, 1024)
}

/// Maintenance windows such as `mon-fri 22:00-04:00 Europe/Berlin`.
fn windows() -> Value {
    json!({"type": "array", "items": {"type": "string", "maxLength": 200}, "maxItems": 32})
}

/// Known by its id, and perhaps new: ids of the form that unregistered devices have are not taken.
fn new_id() -> Value {
    pattern("^(?![tc]-[0-9A-Fa-f]{16}$)[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
}

fn new_user_name() -> Value {
    pattern("^(?![tc]-[0-9A-Fa-f]{16}$)(?!Token$)[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")
}

fn devices() -> Value {
    let offered = object(
        json!({
            "title": maybe(text()), "version": text(), "digest": digest(),
            "chunk_size": count(), "attempt": count(),
        }),
        none(),
    );
    let device = json!({
        "id": name(),
        "online": boolean(),
        "version": about("That it runs, where that is known.", maybe(text())),
        "version_from": about("It reported that version; or it reports none, got that image and was heard long enough after it.", maybe(one_of(&["report", "outcome"]))),
        "state": about("Of its newest offer.", maybe(one_of(&fuota::UPDATE_STATES))),
        "reason": maybe(text()),
        "next_attempt": about("When what failed is offered again at the earliest; null where it may be at any time, or is not.", maybe(time())),
        "progress": object(
            json!({
                "chunks_sent": count(), "chunks_total": count(),
                "bytes_per_second": about("Of firmware, as a mean over some seconds; null before the first block and when it is over.", maybe(count())),
            }),
            none(),
        ),
        "stalled": about("Why its download stands still; null where it goes on, or there is none.", maybe(text())),
        "firmware": maybe(offered),
        "parameters": about(
            "Those of the reference, for its newest offer.",
            maybe(object(json!({"ota_url": text(), "ota_size": count(), "ota_chunks": count()}), none())),
        ),
        "registered": boolean(),
        "groups": list(name()),
        "labels": map(text()),
        "model": maybe(name()),
        "title": maybe(text()),
        "dialect": maybe(text()),
        "protocol": maybe(one_of(&["3.1.1", "5"])),
        "address": maybe(text()),
        "client_id": maybe(text()),
        "last_seen": maybe(time()),
    });
    json!({
        "Device": object(device.clone(), none()),
        "ChangedDevice": object(device, json!({"token": about("The new one, shown only here.", text())})),
        "NewDevice": object(
            json!({"id": new_id()}),
            json!({
                "token": about("Made where none is given.", maybe(token())), "groups": names(),
                "labels": labels(), "model": maybe(name()),
            }),
        ),
        "AddedDevice": object(json!({"id": name(), "token": text()}), none()),
        "DevicePatch": object(none(), json!({
            "groups": maybe(names()), "labels": maybe(labels()),
            "model": about("The empty text forgets it.", maybe(model_or_none())),
            "rotate_token": about("Gives it a new token; the old one works until the new one logs in, a day at most.", boolean()),
            "now": about("With `rotate_token`: the old one ends at once.", boolean()),
        })),
        "Why": object(
            json!({
                "device": name(), "sentence": text(), "deployment": maybe(number()),
                "state": maybe(one_of(&fuota::UPDATE_STATES)),
            }),
            none(),
        ),
        "Happening": object(
            json!({
                "id": number(), "at": time(), "action": text(), "detail": maybe(text()),
                "deployment": maybe(number()),
            }),
            none(),
        ),
        "Import": object(none(), json!({
            "devices": list(component("NewDevice")), "users": list(component("ImportedUser")),
        })),
        "ImportedUser": object(
            json!({
                "name": new_user_name(), "role": one_of(&ROLES),
                "password_hash": about("As mosquitto's password file has it.", pattern(r"^\$(6|7|argon2id)\$")),
            }),
            none(),
        ),
        "Imported": object(
            json!({
                "devices": list(object(
                    json!({"id": name()}),
                    json!({"token": about("Where it was made; shown only here.", text())}),
                )),
                "users": count(),
            }),
            none(),
        ),
    })
}

fn users() -> Value {
    let user = json!({"name": name(), "role": one_of(&ROLES), "created": time()});
    let token = json!({
        "id": pattern(TOKEN_ID), "label": text(), "created": time(),
        "expires": about("Null: never.", maybe(time())),
        "last_used": about("To the hour; null: not yet.", maybe(time())),
    });
    let mut added_token = token.clone();
    added_token["token"] = about("Shown only here.", text());
    let shown = json!({"password": about("Where it was made; shown only here.", text())});
    json!({
        "User": object(user.clone(), none()),
        "AddedUser": object(user, shown),
        "NewUser": object(
            json!({"name": new_user_name(), "role": one_of(&ROLES)}),
            json!({"password": about("Made where none is given.", maybe(password()))}),
        ),
        "UserPatch": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "role": maybe(one_of(&ROLES)), "password": maybe(password()),
                "new_password": about("Makes one.", boolean()),
            },
            // A given one and a made one exclude each other.
            "not": {
                "required": ["password", "new_password"],
                "properties": {"password": {"type": "string"}, "new_password": {"const": true}},
            },
        },
        "Session": object(
            json!({
                "name": maybe(text()), "role": maybe(one_of(&ROLES)),
                "csrf": about("What changes carry in `X-CSRF-Token`.", maybe(text())),
                "version": maybe(text()),
            }),
            none(),
        ),
        "Login": {
            "type": "object", "additionalProperties": false,
            "properties": {"token": maybe(text()), "name": maybe(text()), "password": maybe(text())},
            // The admin token, or name and password.
            "oneOf": [
                {"required": ["token"], "properties": {
                    "token": text(), "name": {"type": "null"}, "password": {"type": "null"},
                }},
                {"required": ["name", "password"], "properties": {
                    "token": {"type": "null"}, "name": text(), "password": text(),
                }},
            ],
        },
        "Token": object(token, none()),
        "AddedToken": object(added_token, none()),
        "NewLink": object(json!({"seconds": between(1, 2_592_000)}), none()),
        "Link": object(json!({"path": text(), "expires": time()}), none()),
        "NewToken": object(none(), json!({
            "label": about("What it is for.", plain(0, 64)),
            "expires_in_days": about("Null: it does not.", maybe(between(1, 3650))),
        })),
    })
}

fn firmware() -> Value {
    let decided = object(
        json!({
            "value": text(),
            "from": one_of(&["trusted comment", "sidecar", "upload", "image header", "file name", "folder", "unverified comment", "digest"]),
        }),
        none(),
    );
    json!({
        "Firmware": object(
            json!({
                "id": pattern("^[0-9a-f]{16}$"),
                "path": text(),
                "state": one_of(&FirmwareState::NAMES),
                "reason": maybe(text()),
                "warnings": about("What is worth a look before it is offered.", list(text())),
                "title": maybe(component("Decided")),
                "version": maybe(component("Decided")),
                "model": maybe(component("Decided")),
                "min_version": maybe(text()),
                "notes": maybe(text()),
                "target": about("`all`, `group:NAME`, `model:NAME` or `device:ID`; null for an upload.", maybe(text())),
                "deployments": list(number()),
                "format": about("Such as `ESP-IDF` or `binary`.", maybe(text())),
                "chip": about("That the image names.", maybe(text())),
                "hardware": about("Devices that a container names, in its own words.", list(text())),
                "security_counter": maybe(count()),
                "signature": maybe(component("Signature")),
                "digest": about("Of what devices get.", maybe(digest())),
                "dropped_digest": about("Where what devices get was unpacked from it.", maybe(digest())),
                "size": maybe(count()),
                "created": maybe(time()),
            }),
            none(),
        ),
        "Decided": decided,
        "Signature": object(
            json!({
                "state": one_of(&["trusted", "unknown", "unsigned"]),
                "key": about("As minisign names it.", maybe(text())),
                "embedded": about("Whether the image carries one for the device to check.", boolean()),
            }),
            none(),
        ),
        "Store": object(
            json!({
                "url": text(), "problem": maybe(text()), "files": count(), "bytes": count(),
                "refused": count(), "troubled": count(), "scanned": maybe(time()), "copies": count(),
                "copied_bytes": count(), "cached_bytes": count(),
            }),
            none(),
        ),
    })
}

fn deployments() -> Value {
    let wave = json!({"oneOf": [
        object(json!({"count": between(1, u64::from(u32::MAX))}), none()),
        object(json!({"percent": between(1, 100)}), none()),
    ]});
    let plan = object(
        json!({"waves": {"type": "array", "items": component("Wave"), "minItems": 1, "maxItems": 20}}),
        json!({"pause_at_percent": about("Null: never.", maybe(between(1, 100)))}),
    );
    let counts: Map<String, Value> =
        fuota::UPDATE_STATES.iter().map(|name| ((*name).to_owned(), count())).collect();
    let deployment = json!({
        "id": number(),
        "state": one_of(&fuota::DEPLOYMENT_STATES),
        "reason": maybe(text()),
        "firmware": component("DeployedFirmware"),
        "target": component("Target"),
        "downgrade": boolean(),
        "rollout": component("Waves"),
        "wave": between(1, 20),
        "wave_size": count(),
        "created": time(),
        "created_by": text(),
        "counts": object(Value::Object(counts), none()),
    });
    let more = json!({
        "windows": about("Instead of the site's; empty: at any time.", windows()),
        "limits": component("Limits"),
        "not_offered": about("Devices that are meant and were not offered it. Not in listings.", count()),
        "complete": about("Not in listings.", boolean()),
    });
    let mut acted = more.clone();
    acted["retried"] = count();
    acted["rollbacks"] = list(number());
    acted["left"] = list(component("Excluded"));
    let targets = [
        json!({"all": {"const": true}}),
        json!({"device": name()}),
        json!({"group": name()}),
        json!({"model": name()}),
        json!({"labels": about("Such as `hall=2 and not spare`.", json!({"type": "string", "minLength": 1, "maxLength": 1024}))}),
    ];
    let mut targets: Vec<_> = targets.into_iter().map(|one| object(one, none())).collect();
    let new_target = json!({"oneOf": targets});
    targets.push(object(json!({"rollback": number()}), none()));
    json!({
        "Wave": wave,
        "Waves": plan,
        "Target": {"oneOf": targets},
        "NewTarget": new_target,
        "DeployedFirmware": object(
            json!({
                "id": text(), "path": text(), "title": maybe(text()), "version": text(),
                "digest": pattern("^([0-9a-f]{64})?$"), "size": count(),
            }),
            none(),
        ),
        "NewDeployment": object(
            json!({"firmware": about("Its id.", text()), "target": component("NewTarget")}),
            json!({
                "rollout": maybe(json!({"anyOf": [one_of(&["all", "canary"]), component("Waves")]})),
                "downgrade": boolean(),
                "windows": maybe(windows()),
                "limits": component("Limits"),
            }),
        ),
        "DeploymentPatch": object(none(), json!({
            "windows": about("Empty: at any time; null: those of the site.", maybe(windows())),
            "limits": component("Limits"),
            "pause_at_percent": about("Null: never.", maybe(between(1, 100))),
        })),
        "Limits": object(none(), json!({
            "transfers": about("Under way at once.", maybe(between(1, u32::MAX.into()))),
            "starts_per_minute": maybe(between(1, u32::MAX.into())),
            "bytes_per_second": about("Firmware, before encoding.", maybe(between(1, 1 << 53))),
        })),
        "Deployment": object(deployment.clone(), more),
        "Acted": object(deployment, acted),
        "Excluded": object(json!({"device": name(), "reason": text()}), none()),
        "Member": object(
            json!({
                "device": name(), "state": maybe(one_of(&fuota::UPDATE_STATES)), "reason": maybe(text()),
                "wave": maybe(between(1, 20)), "at": maybe(time()),
            }),
            none(),
        ),
        "Plan": object(
            json!({
                "firmware": component("DeployedFirmware"), "devices": list(name()),
                "excluded": list(component("Excluded")), "bytes": count(),
                "seconds": about("How long the longest transfer takes; null before there was one.", maybe(count())),
                "waves": list(count()),
            }),
            none(),
        ),
    })
}

fn site() -> Value {
    let check = object(json!({"name": text(), "ok": boolean()}), json!({"reason": text()}));
    let ready = json!({"ready": boolean(), "checks": list(component("Check"))});
    let mut status = ready.clone();
    status["version"] = text();
    status["uptime_seconds"] = count();
    status["broker"] = component("BrokerCounters");
    status["fuota"] = component("Site");
    status["quirks"] = about("What dialects tolerated since the start.", map(map(count())));
    let states = |names: &[&str]| {
        json!({
            "type": "object", "propertyNames": one_of(names), "additionalProperties": count()
        })
    };
    json!({
        "Problem": problem(),
        "Check": check,
        "Ready": object(ready, none()),
        "Status": object(status, none()),
        "Site": object(
            json!({
                "ready": boolean(), "store_problem": maybe(text()), "database_problem": maybe(text()),
                "window_closed": about("Why nothing new is offered on the site now.", maybe(text())),
                "clock_problem": maybe(text()),
                "devices": object(json!({"total": count(), "registered": count(), "online": count()}), none()),
                "states": states(&fuota::UPDATE_STATES),
                "firmware": states(&FirmwareState::NAMES),
                "blocks": count(), "block_bytes": count(), "manifests": count(), "errors": count(),
                "batches": count(), "refused": count(), "failed_logins": count(),
            }),
            none(),
        ),
        "Change": {"oneOf": changes()},
        "Fleet": object(
            json!({
                "versions": list(object(
                    json!({
                        "title": maybe(text()), "version": maybe(text()),
                        "devices": count(), "online": count(),
                    }),
                    none(),
                )),
                "other_versions": count(),
                "groups": list(component("Named")), "models": list(component("Named")),
                "labels": list(component("Named")),
                "deployments": map(count()),
            }),
            none(),
        ),
        "Named": object(json!({"name": text(), "devices": count()}), none()),
        "History": object(
            json!({"points": list(object(json!({"at": time(), "counts": map(count())}), none()))}),
            none(),
        ),
        "Freeze": object(json!({"frozen": boolean()}), json!({"at": time(), "by": text()})),
        "AuditLine": object(
            json!({
                "id": number(), "at": time(), "actor": maybe(text()), "origin": maybe(text()),
                "subject": text(), "action": text(), "detail": maybe(text()),
            }),
            none(),
        ),
        "NewBackup": object(json!({"path": about("Absolute, and new.", pattern(r"^/([^/\u0000]+/)*[^/\u0000]+$"))}), none()),
        "Backup": object(
            json!({"path": text(), "images": count(), "image_bytes": count()}),
            none(),
        ),
    })
}

/// What `data` of an event may be, by its `type`.
fn changes() -> Vec<Value> {
    let change = |kind: &str, members: Value| {
        let mut all = json!({"type": {"const": kind}, "at": time()});
        if let (Some(all), Value::Object(members)) = (all.as_object_mut(), members) {
            all.extend(members);
        }
        object(all, none())
    };
    vec![
        change(
            "device",
            json!({
                "device": name(), "state": one_of(&fuota::UPDATE_STATES), "reason": maybe(text()),
                "deployment": maybe(number()), "version": text(),
            }),
        ),
        change(
            "deployment",
            json!({
                "deployment": number(), "state": one_of(&fuota::DEPLOYMENT_STATES),
                "reason": maybe(text()), "wave": between(1, 20),
            }),
        ),
        change(
            "firmware",
            json!({
                "path": text(), "state": one_of(&FirmwareState::NAMES), "reason": maybe(text()),
            }),
        ),
        change(
            "known",
            json!({
                "device": name(),
                "what": one_of(&["online", "offline", "registered", "changed", "removed"]),
            }),
        ),
        change("user", json!({"user": name(), "what": one_of(&["added", "changed", "removed"])})),
        change("import", json!({"devices": count(), "users": count()})),
        change("site", json!({"frozen": boolean(), "store_problem": maybe(text())})),
        object(
            json!({
                "type": {"const": "missed"},
                "events": about("Null: nobody knows how many, since the daemon was started anew.", maybe(count())),
            }),
            none(),
        ),
    ]
}

fn broker() -> Value {
    // Whatever it counts, by its own names.
    let mut counters = json!(hook::Counters::default());
    counters.as_object_mut().into_iter().flatten().for_each(|(_, number)| *number = count());
    json!({
        "BrokerCounters": object(counters, none()),
        "Client": object(
            json!({
                "id": text(), "connected": boolean(), "name": maybe(text()),
                "role": one_of(&["anonymous", "device", "service", "operator", "admin"]),
                "protocol": one_of(&["3.1.1", "5"]), "address": maybe(text()),
                "since_seconds": count(), "idle_seconds": maybe(count()),
                "queued_messages": count(), "queued_bytes": count(), "inflight": count(),
                "subscription_count": count(),
            }),
            json!({
                "subscriptions": about("Not in listings.", list(object(
                    json!({"filter": text(), "qos": between(0, 2)}), none(),
                ))),
            }),
        ),
        "Retained": object(
            json!({
                "topic": text(), "qos": between(0, 2), "size": count(), "expires_in_seconds": maybe(count()),
                "encoding": one_of(&["utf-8", "base64"]), "payload": text(),
            }),
            none(),
        ),
    })
}
