//! Words of JSON Schema, so that the description reads like a table.

use serde_json::{Map, Value, json};

/// Names of devices, groups, models and users (rule 4).
pub const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$";
/// The number of a deployment, of a line of the audit, of a line of a timeline.
pub const NUMBER: &str = "^[1-9][0-9]{0,17}$";
/// The id of a user's token.
pub const TOKEN_ID: &str = "^[0-9a-f]{8}$";
/// SHA-256 in hex.
const DIGEST: &str = "^[0-9a-f]{64}$";
/// A topic filter of MQTT that is not shared: `+` and `#` stand alone, `#` in the last level.
const FILTER: &str = r"^(?!\$share(/|$))(#|(\+|[^+#/\u0000]*)(/(\+|[^+#/\u0000]*)){0,126}(/#)?)$";
/// One that is not about the topics of the broker.
const REMOVABLE: &str = r"^(?!\$)(#|(\+|[^+#/\u0000]*)(/(\+|[^+#/\u0000]*)){0,126}(/#)?)$";

/// A component of the description, by its name.
pub fn component(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Members that are always there, members that may be, and no others.
pub fn object(required: Value, optional: Value) -> Value {
    let mut properties = members(required);
    let names: Vec<_> = properties.keys().cloned().collect();
    properties.extend(members(optional));
    json!({
        "type": "object", "properties": properties, "required": names, "additionalProperties": false
    })
}

/// What is written as `{}` above.
pub fn none() -> Value {
    json!({})
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// The schema with one sentence about it.
pub fn about(text: &str, schema: Value) -> Value {
    let mut members = members(schema);
    members.insert("description".into(), text.into());
    Value::Object(members)
}

/// The schema, or null.
pub fn maybe(schema: Value) -> Value {
    let mut members = members(schema);
    if let Some(Value::String(kind)) = members.get("type").cloned() {
        members.insert("type".into(), json!([kind, "null"]));
        if let Some(Value::Array(values)) = members.get_mut("enum") {
            values.push(Value::Null);
        }
        return Value::Object(members);
    }
    json!({"anyOf": [members, {"type": "null"}]})
}

pub fn text() -> Value {
    json!({"type": "string"})
}

pub fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

pub fn name() -> Value {
    pattern(NAME)
}

pub fn number() -> Value {
    pattern(NUMBER)
}

pub fn digest() -> Value {
    pattern(DIGEST)
}

pub fn filter() -> Value {
    json!({"type": "string", "pattern": FILTER, "minLength": 1, "maxLength": 1024})
}

pub fn removable() -> Value {
    json!({"type": "string", "pattern": REMOVABLE, "minLength": 1, "maxLength": 1024})
}

pub fn boolean() -> Value {
    json!({"type": "boolean"})
}

/// A number that only counts.
pub fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

pub fn between(minimum: u64, maximum: u64) -> Value {
    json!({"type": "integer", "minimum": minimum, "maximum": maximum})
}

pub fn time() -> Value {
    about("Seconds since 1970.", count())
}

pub fn one_of(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

pub fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// Any member names with values of one kind.
pub fn map(values: Value) -> Value {
    json!({"type": "object", "additionalProperties": values})
}

/// A page of a listing, with the key of the next one.
pub fn page(field: &str, entry: &str) -> Value {
    object(
        json!({
            field: list(component(entry)),
            "next": about("The `after` of the next page; null at the end.", maybe(text())),
        }),
        none(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_closed_and_say_what_they_need() {
        let one = object(json!({"id": name()}), json!({"model": maybe(name())}));
        assert_eq!(one["additionalProperties"], false);
        assert_eq!(one["required"], json!(["id"]));
        assert_eq!(one["properties"]["model"]["type"], json!(["string", "null"]));
        assert_eq!(maybe(component("X"))["anyOf"][1], json!({"type": "null"}));
        assert_eq!(maybe(one_of(&["a"]))["enum"], json!(["a", null]));
    }
}
