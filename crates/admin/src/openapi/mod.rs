//! What this interface takes and gives, as OpenAPI 3.1, at `/api/v1/openapi.json`.
//!
//! It is written by hand beside the handlers, not derived from their types: the bounds and
//! patterns that a request must keep are rules of the service, which no type shows. Tests keep it
//! true: every route must be in it, every member that the server takes or gives, and a foreign
//! program sends whatever it allows and forbids.
//!
//! | module | subject |
//! | --- | --- |
//! | `schema` | words of JSON Schema |
//! | `operation` | one method of one path |
//! | `paths` | all of them |
//! | `components` | the shapes of bodies and answers |

mod components;
mod operation;
mod paths;
mod schema;

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use crate::{
    doors,
    extract::{Nothing, Query},
    routes::App,
};

/// GET.
pub async fn show(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Json<Value> {
    Json(document(&app.version))
}

/// The whole description.
pub fn document(version: &str) -> Value {
    let mut all = Map::new();
    for (path, operations) in paths::open() {
        all.insert(path.into(), item(path, "health", operations, false));
    }
    for (path, operations) in paths::measured() {
        all.insert(path.into(), item(path, "health", operations, true));
    }
    for (tag, paths) in paths::api() {
        for (path, operations) in paths {
            all.insert(format!("/api{path}"), item(path, tag, operations, true));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "fuotad",
            "version": version,
            "description": "Administration of an MQTT broker with firmware updates built in.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": all,
        "components": {
            "schemas": components::schemas(),
            "responses": operation::problems(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The admin token, or a token of a user."},
                "basic": {"type": "http", "scheme": "basic", "description": "Name and password of a user."},
            },
        },
    })
}

fn item(path: &str, tag: &str, operations: Vec<operation::Operation>, closed: bool) -> Value {
    let mut item = Map::new();
    for operation in operations {
        let method = operation.method.clone();
        let role = closed.then(|| doors::least_role(&method, path).name());
        let id = format!("{} {path}", method.as_str().to_lowercase());
        let id: Vec<_> = id
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|part| !part.is_empty())
            .collect();
        item.insert(method.as_str().to_lowercase(), operation.describe(tag, id.join("_"), role));
    }
    Value::Object(item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let described = document("0");
        let mut described: Vec<_> =
            described["paths"].as_object().unwrap().keys().cloned().collect();
        let api = routes::api().paths.into_iter().map(|path| format!("/api{path}"));
        let api = api.chain(routes::measured().paths.into_iter().map(str::to_owned));
        let mut routes: Vec<_> =
            api.chain(routes::open().paths.into_iter().map(str::to_owned)).collect();
        described.sort();
        routes.sort();
        assert_eq!(described, routes);
    }

    /// Every `$ref` leads somewhere, and every object says which members it has.
    #[test]
    fn the_description_is_whole_and_closed() {
        fn walk(value: &Value, document: &Value, path: &str) {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                let found = document.pointer(target.trim_start_matches('#'));
                assert!(found.is_some(), "{path}: {target} leads nowhere");
            }
            if value.get("type") == Some(&json!("object")) && value.get("properties").is_some() {
                assert_eq!(value["additionalProperties"], false, "{path} is open");
            }
            match value {
                Value::Object(members) => {
                    members
                        .iter()
                        .for_each(|(name, one)| walk(one, document, &format!("{path}/{name}")));
                }
                Value::Array(items) => items.iter().for_each(|one| walk(one, document, path)),
                _ => {}
            }
        }
        let document = document("0");
        walk(&document, &document, "");
        let text = document.to_string();
        for (_, rest) in
            text.match_indices("\"links\":{\"").map(|(at, found)| text.split_at(at + found.len()))
        {
            let id = rest.split('"').next().unwrap();
            assert!(text.contains(&format!("\"operationId\":\"{id}\",\"")), "{id} leads nowhere");
        }
    }
}
