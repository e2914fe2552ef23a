//! One method of one path: what it takes, and every answer that it gives.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::schema::{between, component, none, number, object, pattern, text};

/// See [the module](self).
pub struct Operation {
    pub method: Method,
    summary: &'static str,
    description: Option<&'static str>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
}

/// What goes wrong, by the status; a component of the description.
const PROBLEMS: [(u16, &str); 11] = [
    (400, "The body, the query or a header cannot be used."),
    (401, "No login, or the wrong one."),
    (403, "Host or Origin is not ours, or the role may not do this."),
    (404, "There is no such thing."),
    (408, "The body was too slow."),
    (409, "It exists already, or contradicts what exists."),
    (413, "The body is too large."),
    (415, "The body is not of the type that is taken here."),
    (422, "A value is not allowed; `field` names it, `rows` the rows of an import."),
    (500, "Something went wrong inside; the log says where."),
    (503, "It cannot be done now; `Retry-After` says when to try again."),
];

pub fn get(summary: &'static str) -> Operation {
    Operation::new(Method::GET, summary)
}

pub fn post(summary: &'static str) -> Operation {
    Operation::new(Method::POST, summary)
}

pub fn put(summary: &'static str) -> Operation {
    Operation::new(Method::PUT, summary)
}

pub fn patch(summary: &'static str) -> Operation {
    Operation::new(Method::PATCH, summary)
}

pub fn delete(summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, summary)
}

impl Operation {
    fn new(method: Method, summary: &'static str) -> Operation {
        Operation {
            method,
            summary,
            description: None,
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
        }
    }

    /// More than a line about it.
    pub fn about(self, text: &'static str) -> Operation {
        Operation { description: Some(text), ..self }
    }

    fn parameter(mut self, place: &str, name: &str, about: &str, schema: Value) -> Operation {
        let required = place == "path";
        self.parameters.push(json!({
            "in": place, "name": name, "description": about, "required": required, "schema": schema
        }));
        self
    }

    /// A variable part of the path.
    pub fn path(self, name: &str, about: &str, schema: Value) -> Operation {
        self.parameter("path", name, about, schema)
    }

    pub fn query(self, name: &str, about: &str, schema: Value) -> Operation {
        self.parameter("query", name, about, schema)
    }

    /// A query that must be there.
    pub fn must_query(self, name: &str, about: &str, schema: Value) -> Operation {
        let mut operation = self.parameter("query", name, about, schema);
        if let Some(parameter) = operation.parameters.last_mut() {
            parameter["required"] = true.into();
        }
        operation
    }

    pub fn header(self, name: &str, about: &str, schema: Value) -> Operation {
        self.parameter("header", name, about, schema)
    }

    /// `limit` and `after`; `by_number`: the keys are numbers.
    pub fn paged(self, by_number: bool) -> Operation {
        let after = if by_number { number() } else { text() };
        self.query("limit", "Entries of a page; 100 by default.", between(1, 1000)).query(
            "after",
            "The `next` of the page before.",
            after,
        )
    }

    /// `dry_run`: only says whether it would be possible.
    pub fn dry_run(self, about: &str) -> Operation {
        self.query("dry_run", about, json!({"type": "boolean"}))
    }

    /// `Idempotency-Key`.
    pub fn repeatable(self) -> Operation {
        let mut schema = pattern("^[!-~]([ -~]*[!-~])?$");
        (schema["minLength"], schema["maxLength"]) = (1.into(), 255.into());
        self.header(
            "Idempotency-Key",
            "Names this request, so that it can be repeated: nothing is made twice.",
            schema,
        )
        .fails(&[409, 422])
    }

    /// A JSON body, by the name of its schema.
    pub fn takes(mut self, schema: &str) -> Operation {
        self.body = Some(json!({
            "required": true, "content": {"application/json": {"schema": component(schema)}}
        }));
        self.fails(&[408, 413, 415])
    }

    /// A form.
    pub fn takes_form(mut self, required: Value, optional: Value) -> Operation {
        self.body = Some(json!({
            "required": true,
            "content": {"multipart/form-data": {"schema": object(required, optional)}}
        }));
        self.fails(&[408])
    }

    /// A JSON answer, by the name of its schema.
    pub fn gives(self, status: u16, about: &str, schema: &str) -> Operation {
        self.gives_of(status, about, component(schema))
    }

    pub fn gives_of(self, status: u16, about: &str, schema: Value) -> Operation {
        self.answer(
            status,
            json!({
                "description": about, "content": {"application/json": {"schema": schema}}
            }),
        )
    }

    /// As [`Operation::gives`], with the address of what was made.
    pub fn makes(self, status: u16, about: &str, schema: &str) -> Operation {
        let location = json!({
            "Location": {"description": "Where it is.", "required": true, "schema": {"type": "string"}}
        });
        self.answer(
            status,
            json!({
                "description": about, "headers": location,
                "content": {"application/json": {"schema": component(schema)}}
            }),
        )
    }

    /// What is made by a 201 can be asked for by other operations, which are named by what follows
    /// their path up to here; `ids` are the parts of their paths.
    pub fn leads_to(mut self, ids: Value, operations: &[&str]) -> Operation {
        if let Some(made) = self.answers.get_mut("201") {
            for operation in operations {
                made["links"][*operation] = json!({"operationId": operation, "parameters": ids});
            }
        }
        self
    }

    pub fn gives_text(self, status: u16, about: &str, kind: &str) -> Operation {
        self.answer(
            status,
            json!({
                "description": about, "content": {kind: {"schema": {"type": "string"}}}
            }),
        )
    }

    /// Server-sent events whose `data` is JSON of this schema. The schema is that of one event.
    pub fn gives_events(self, status: u16, about: &str, schema: &str) -> Operation {
        let data = json!({
            "type": "string", "contentMediaType": "application/json",
            "contentSchema": component(schema),
        });
        let event = object(
            json!({"id": text()}),
            json!({"event": text(), "data": data, "retry": {"type": ["integer", "string"]}}),
        );
        self.answer(
            status,
            json!({"description": about, "content": {"text/event-stream": {"schema": event}}}),
        )
    }

    /// An answer without a body.
    pub fn done(self, about: &str) -> Operation {
        self.answer(204, json!({"description": about}))
    }

    /// Errors beside those that every operation may have.
    pub fn fails(mut self, statuses: &[u16]) -> Operation {
        for status in statuses {
            let answer = json!({"$ref": format!("#/components/responses/{status}")});
            self.answers.entry(status.to_string()).or_insert(answer);
        }
        self
    }

    fn answer(mut self, status: u16, answer: Value) -> Operation {
        self.answers.insert(status.to_string(), answer);
        self
    }

    /// As it stands in the description. `role` is the least that may do it; `None`: it is open.
    pub fn describe(self, tag: &str, id: String, role: Option<&str>) -> Value {
        let operation = match role {
            Some(_) => self.fails(&[400, 401, 403, 500, 503]),
            None => self.fails(&[400, 403]),
        };
        let mut value = json!({
            "tags": [tag], "operationId": id, "summary": operation.summary,
            "responses": operation.answers,
        });
        let role = role.map(|role| format!("For the role `{role}` and those above it."));
        let about: Vec<_> =
            operation.description.map(str::to_owned).into_iter().chain(role.clone()).collect();
        if !about.is_empty() {
            value["description"] = about.join(" ").into();
        }
        if role.is_none() {
            value["security"] = json!([]);
        }
        if !operation.parameters.is_empty() {
            value["parameters"] = operation.parameters.into();
        }
        if let Some(body) = operation.body {
            value["requestBody"] = body;
        }
        value
    }
}

/// The answers that tell what went wrong, by their status.
pub fn problems() -> Value {
    let mut all = Map::new();
    for (status, about) in PROBLEMS {
        let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let schema = json!({
            "allOf": [component("Problem")],
            "properties": {"status": {"const": status}, "title": {"const": title}},
        });
        let mut answer = json!({
            "description": about, "content": {"application/problem+json": {"schema": schema}}
        });
        let header = match status {
            401 => Some("WWW-Authenticate"),
            503 => Some("Retry-After"),
            _ => None,
        };
        if let Some(header) = header {
            answer["headers"] = json!({header: {"required": true, "schema": {"type": "string"}}});
        }
        all.insert(status.to_string(), answer);
    }
    Value::Object(all)
}

/// RFC 9457.
pub fn problem() -> Value {
    object(
        json!({
            "type": {"const": "about:blank"},
            "title": text(),
            "status": between(400, 599),
            "detail": text(),
        }),
        json!({
            "field": text(),
            "rows": {"type": "array", "items": object(
                json!({
                    "list": {"type": "string", "enum": ["devices", "users"]},
                    "row": {"type": "integer", "minimum": 0},
                    "detail": text(),
                }),
                none(),
            )},
        }),
    )
}
