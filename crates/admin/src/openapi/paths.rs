//! Every operation of every path.

use serde_json::json;

use super::{
    operation::{Operation, delete, get, patch, post, put},
    schema::{
        TOKEN_ID, boolean, component, filter, name, none, number, object, one_of, page, pattern,
        removable, text,
    },
};

/// A path below `/api`, or one that is open to everybody; and what can be done there.
pub type Described = (&'static str, Vec<Operation>);

/// What can be done with a deployment, by the ids of the operations.
const ACTS: [&str; 7] = [
    "patch_v1_deployments_id",
    "post_v1_deployments_id_approve",
    "post_v1_deployments_id_pause",
    "post_v1_deployments_id_resume",
    "post_v1_deployments_id_cancel",
    "post_v1_deployments_id_retry",
    "post_v1_deployments_id_rollback",
];
const ROLES: &str = "`service`, `operator` and `admin` may use this interface; `device` may not.";

/// Health, for supervisors; open to everybody who reaches the port.
pub fn open() -> Vec<Described> {
    vec![
        (
            "/healthz",
            vec![get("Whether the process lives").gives_text(200, "It does.", "text/plain")],
        ),
        (
            "/readyz",
            vec![get("Whether all is up").gives(200, "All is up.", "Ready").gives(
                503,
                "Something is not, and why.",
                "Ready",
            )],
        ),
        (
            "/api/v1/session",
            vec![
                get("Who is logged in to the page, with the request's cookie")
                    .gives(200, "Nulls where nobody is.", "Session"),
                post("Log in to the page")
                    .about("For browsers; programs use tokens. The answer sets a cookie that no script sees.")
                    .takes("Login")
                    .gives(201, "Logged in.", "Session")
                    .fails(&[401, 500, 503]),
                delete("Log out of the page")
                    .about("With the cookie, a change needs its `X-CSRF-Token`.")
                    .done("Nobody is logged in with this cookie any more.")
                    .fails(&[401, 500, 503]),
            ],
        ),
    ]
}

/// For Prometheus.
pub fn measured() -> Vec<Described> {
    let metrics = get("Counters, gauges and histograms in the text form of Prometheus");
    vec![("/metrics", vec![metrics.gives_text(200, "All of them.", "text/plain")])]
}

/// Everything below `/api`, by what it is about.
pub fn api() -> Vec<(&'static str, Vec<Described>)> {
    vec![
        ("devices", devices()),
        ("users", users()),
        ("import", import()),
        ("firmware", firmware()),
        ("deployments", deployments()),
        ("site", site()),
        ("clients", clients()),
        ("retained", retained()),
    ]
}

fn devices() -> Vec<Described> {
    let one = |operation: Operation| operation.path("id", "The device's id.", name()).fails(&[404]);
    vec![
        (
            "/v1/devices",
            vec![
                get("List devices, by id")
                    .paged(false)
                    .query("online", "Only connected ones, or only those that are away.", boolean())
                    .query(
                        "registered",
                        "Only registered ones, or only merely seen ones.",
                        boolean(),
                    )
                    .query("group", "Only members of this group.", text())
                    .query("model", "Only devices of this model.", text())
                    .query(
                        "state",
                        "Only devices whose newest offer is in this state.",
                        one_of(&fuota::UPDATE_STATES),
                    )
                    .query("version", "Only devices that reported this version.", text())
                    .query("digest", "Only devices whose newest offer has this SHA-256.", text())
                    .query("search", "Only devices whose id or client id contains this.", text())
                    .gives_of(200, "A page of devices.", page("devices", "Device")),
                post("Register a device")
                    .about("Its token is in the answer, and is shown only there.")
                    .dry_run("Adds nothing; says whether it could be.")
                    .repeatable()
                    .takes("NewDevice")
                    .makes(201, "It is registered.", "AddedDevice")
                    .makes(
                        200,
                        "It was registered by an earlier request with this key.",
                        "AddedDevice",
                    )
                    .done("It could be registered.")
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/devices/{id}",
            vec![
                one(get("Show a device")).gives(200, "The device.", "Device"),
                one(patch("Change what is named of a device"))
                    .takes("DevicePatch")
                    .gives(200, "The device after it.", "ChangedDevice")
                    .fails(&[409, 422]),
                one(delete("Forget a device"))
                    .about("Its token and its history go, and its connections end.")
                    .done("It is forgotten.")
                    .fails(&[409]),
            ],
        ),
        (
            "/v1/devices/{id}/why",
            vec![one(get("Why a device is or is not offered something")).gives(
                200,
                "One sentence.",
                "Why",
            )],
        ),
        (
            "/v1/devices/{id}/links",
            vec![
                one(post("Make a link by which the device's firmware is fetched over HTTP"))
                    .about("Who has it needs no token, until it ends.")
                    .repeatable()
                    .takes("NewLink")
                    .gives(200, "A path below an address of `http.listen`.", "Link")
                    .fails(&[422]),
            ],
        ),
        (
            "/v1/devices/{id}/timeline",
            vec![one(get("What happened to a device, the newest first")).paged(true).gives_of(
                200,
                "A page of lines.",
                page("timeline", "Happening"),
            )],
        ),
    ]
}

fn users() -> Vec<Described> {
    let one = |operation: Operation| operation.path("id", "The user's name.", name()).fails(&[404]);
    vec![
        (
            "/v1/users",
            vec![
                get("List users, by name").paged(false).gives_of(200, "A page of users.", page("users", "User")),
                post("Add a user")
                    .about("A password that was made is in the answer, and is shown only there.")
                    .repeatable()
                    .takes("NewUser")
                    .makes(201, "It is added.", "AddedUser")
                    .makes(200, "It was added by an earlier request with this key.", "AddedUser")
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/users/{id}",
            vec![
                one(get("Show a user")).gives(200, "The user.", "User"),
                one(patch("Change what is named of a user, and end its connections"))
                    .takes("UserPatch")
                    .gives(200, "The user after it.", "AddedUser")
                    .fails(&[409, 422]),
                one(delete("Remove a user"))
                    .about("Its tokens go, and its connections end; with a user of the role `device` the device is forgotten too.")
                    .done("It is removed."),
            ],
        ),
        (
            "/v1/users/{id}/tokens",
            vec![
                one(get("List the tokens of a user, by their ids"))
                    .paged(false)
                    .gives_of(200, "A page of tokens.", page("tokens", "Token")),
                one(post("Make a token for a user"))
                    .about("A bearer token for this interface, with the role that the user has when it is used. It is shown only here.")
                    .repeatable()
                    .takes("NewToken")
                    .makes(201, "It is made.", "AddedToken")
                    .leads_to(
                        json!({"id": "$request.path.id", "token": "$response.body#/id"}),
                        &["delete_v1_users_id_tokens_token"],
                    )
                    .makes(200, "It was made by an earlier request with this key.", "AddedToken")
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/users/{id}/tokens/{token}",
            vec![
                one(delete("Revoke a token")).path("token", "The token's id.", pattern(TOKEN_ID)).done("It opens nothing any more."),
            ],
        ),
    ]
}

fn import() -> Vec<Described> {
    vec![(
        "/v1/import",
        vec![
            post("Add devices and users, all or none")
                .dry_run("Adds nothing; says whether all could be.")
                .repeatable()
                .takes("Import")
                .gives(201, "All are added. Tokens that were made are shown only here.", "Imported")
                .gives(200, "All were added by an earlier request with this key.", "Imported")
                .done("All could be added.")
                .fails(&[409, 422]),
        ],
    )]
}

fn firmware() -> Vec<Described> {
    let one = |operation: Operation| {
        operation.path("id", "The file's id.", pattern("^[0-9a-f]{16}$")).fails(&[404])
    };
    let bytes = json!({"type": "string", "format": "binary", "minLength": 1, "contentMediaType": "application/octet-stream"});
    let short = || json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"});
    vec![
        (
            "/v1/firmware",
            vec![
                get("List dropped and uploaded files, by id")
                    .paged(false)
                    .gives_of(200, "A page of files.", page("firmware", "Firmware")),
                post("Catalogue an image")
                    .about("Nobody gets it before a deployment. The same bytes under the same name are catalogued once.")
                    .repeatable()
                    .takes_form(
                        json!({"file": bytes}),
                        json!({"name": short(), "version": short(), "model": name(), "notes": {"type": "string", "maxLength": 1024}, "signature": {"type": "string", "maxLength": 8192}}),
                    )
                    .makes(201, "It is catalogued.", "Firmware")
                    .makes(200, "It was there already.", "Firmware")
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/firmware/rescan",
            vec![
                post("Look at the place where firmware is dropped now")
                    .about("Answers when that look has ended, and what it saw has settled.")
                    .gives(200, "What is there.", "Store"),
            ],
        ),
        (
            "/v1/firmware/{id}",
            vec![
                one(get("Show a file")).gives(200, "The file.", "Firmware"),
                one(delete("Withdraw a file's bytes for good"))
                    .about("They are never offered again, and the transfers of them end. The file stays listed as withdrawn.")
                    .done("They are withdrawn."),
            ],
        ),
    ]
}

fn deployments() -> Vec<Described> {
    let one = |operation: Operation| {
        operation.path("id", "The deployment's number.", number()).fails(&[404])
    };
    let act =
        |summary| one(post(summary)).gives(200, "The deployment after it.", "Acted").fails(&[409]);
    vec![
        (
            "/v1/deployments",
            vec![
                get("List deployments, the newest first")
                    .paged(true)
                    .query("state", "Only those in this state.", one_of(&fuota::DEPLOYMENT_STATES))
                    .gives_of(200, "A page of deployments.", page("deployments", "Deployment")),
                post("Deploy firmware")
                    .dry_run("Makes nothing; says who would get it, who not and why.")
                    .repeatable()
                    .takes("NewDeployment")
                    .makes(201, "It is made.", "Deployment")
                    .leads_to(json!({"id": "$response.body#/id"}), &ACTS)
                    .gives_of(200, "It was made by an earlier request with this key; or what it would do.",
                        json!({"anyOf": [component("Deployment"), component("Plan")]}))
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/deployments/{id}",
            vec![
                one(get("Show a deployment")).gives(200, "The deployment.", "Deployment"),
                one(patch("Change what is named of a deployment that is not over, at once"))
                    .about("A cap that is lowered ends nothing that runs.")
                    .takes("DeploymentPatch")
                    .gives(200, "The deployment after it.", "Deployment")
                    .fails(&[409, 422]),
            ],
        ),
        (
            "/v1/deployments/{id}/devices",
            vec![
                one(get("The devices of a deployment, by id"))
                    .about("Those that were offered it, and those that are meant and were not, with the reason.")
                    .paged(false)
                    .gives_of(200, "A page of devices.", page("devices", "Member")),
            ],
        ),
        (
            "/v1/deployments/{id}/history",
            vec![
                one(get("How many devices of a deployment had reached which state when"))
                    .gives(200, "At most 121 moments, in the order of time.", "History"),
            ],
        ),
        ("/v1/deployments/{id}/approve", vec![act("Release a held deployment, or open the next wave")]),
        ("/v1/deployments/{id}/pause", vec![act("Stop new offers")]),
        ("/v1/deployments/{id}/resume", vec![act("Go on; the failures until now are known")]),
        (
            "/v1/deployments/{id}/cancel",
            vec![
                act("Stop it for good, with the transfers that run; or for one device")
                    .about("For one device: its transfer ends, and it is offered this no more until a retry names it. The others go on.")
                    .query("device", "Only for this device.", name()),
            ],
        ),
        (
            "/v1/deployments/{id}/retry",
            vec![
                act("Offer it again to whom it failed for")
                    .query("device", "Only to this device, also where it was cancelled for it.", name()),
            ],
        ),
        (
            "/v1/deployments/{id}/rollback",
            vec![act("Cancel it, and give the devices that it reached what they had before")],
        ),
    ]
}

fn site() -> Vec<Described> {
    vec![
        ("/v1/status", vec![get("The daemon at a glance").about(ROLES).gives(200, "The daemon.", "Status")]),
        (
            "/v1/fleet",
            vec![
                get("The fleet counted: versions, groups, models, labels, deployments")
                    .gives(200, "The fleet.", "Fleet"),
            ],
        ),
        (
            "/v1/freeze",
            vec![
                get("Whether all offers of the site are stopped").gives(200, "Whether they are.", "Freeze"),
                put("Stop all offers of the site; what runs finishes").gives(200, "They are stopped.", "Freeze"),
                delete("Let offers go on").gives(200, "They go on.", "Freeze"),
            ],
        ),
        (
            "/v1/audit",
            vec![
                get("Who did what to what, when, from where; the newest first")
                    .paged(true)
                    .gives_of(200, "A page of lines.", page("audit", "AuditLine")),
            ],
        ),
        (
            "/v1/events",
            vec![
                get("Every change as it happens")
                    .about("Server-sent events; `data` is JSON, `id` the place to go on from.")
                    .query("type", "Only changes of these kinds, with commas between.", pattern(&event_types()))
                    .query("follow", "`true` unless said otherwise; `false` ends the answer with what is there already.", boolean())
                    .header("Last-Event-ID", "The `id` of the last event that was heard: what came after it is sent first.",
                        json!({"type": "string", "pattern": "^[!-~]{1,64}$"}))
                    .gives_events(200, "The changes, one after the other.", "Change"),
            ],
        ),
        (
            "/v1/backup",
            vec![
                post("Copy everything at one moment into a new directory of the daemon's machine")
                    .takes("NewBackup")
                    .gives(201, "It is copied and synced.", "Backup")
                    .fails(&[409, 422]),
            ],
        ),
        ("/v1/openapi.json", vec![get("This description").gives_of(200, "OpenAPI 3.1.", json!({"type": "object"}))]),
    ]
}

/// Names of kinds of changes, with commas between.
fn event_types() -> String {
    let one = format!("({})", fuota::Change::NAMES.join("|"));
    format!("^{one}(,{one}){{0,15}}$")
}

fn clients() -> Vec<Described> {
    let one = |operation: Operation| {
        operation
            .path(
                "id",
                "The client id, percent-encoded.",
                json!({"type": "string", "minLength": 1}),
            )
            .fails(&[404])
    };
    vec![
        (
            "/v1/clients",
            vec![
                get("List sessions of the broker, by client id")
                    .paged(false)
                    .query(
                        "connected",
                        "Only connected ones, or only those that are away.",
                        boolean(),
                    )
                    .query("prefix", "Only those whose client id begins with this.", text())
                    .gives_of(200, "A page of sessions.", page("clients", "Client")),
            ],
        ),
        (
            "/v1/clients/{id}",
            vec![
                one(get("Show a session with its subscriptions")).gives(
                    200,
                    "The session.",
                    "Client",
                ),
                one(delete("End a client's connection; a persistent session stays"))
                    .done("It is ended."),
            ],
        ),
    ]
}

fn retained() -> Vec<Described> {
    vec![(
        "/v1/retained",
        vec![
            get("List retained messages, by topic")
                .about("Topics below `$` must be named. A page ends early at 4 MiB of payloads, and after \
                        10,000 messages. Those that `auth.rules` keep from the user are left out.")
                .paged(false)
                .query("filter", "Only those that this topic filter matches.", filter())
                .gives_of(200, "A page of messages.", page("retained", "Retained"))
                .fails(&[422]),
            delete("Remove retained messages")
                .about("Subscribers hear nothing of it. Not below `$`.")
                .must_query("filter", "Those that this topic filter matches.", removable())
                .gives_of(
                    200,
                    "They are removed.",
                    object(json!({"removed": super::schema::count()}), none()),
                )
                .fails(&[422]),
        ],
    )]
}
