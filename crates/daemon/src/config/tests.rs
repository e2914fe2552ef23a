//! Every line that a configuration can fail with.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc, time::Duration};

use super::{keys::KEYS, *};

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Site { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let path = self.path("broker.toml");
        fs::write(&path, text).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load_with(Some(&path), environment)
    }

    fn error(&self, text: &str, environment: &[(&str, &str)]) -> String {
        let error = self.load(text, environment).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{:?}", error.problems());
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line:?}");
        line
    }
}

fn error(text: &str) -> String {
    Site::new().error(text, &[])
}

fn load(text: &str) -> Config {
    Site::new().load(text, &[]).unwrap()
}

#[test]
fn defaults() {
    let site = Site::new();
    let config = site.load("", &[]).unwrap();
    assert_eq!(config.data_dir, site.path("data"));
    assert_eq!(config.mqtt.listen, ["127.0.0.1:1883".parse().unwrap()]);
    assert_eq!(config.admin.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.token_path(), site.path("data/admin.token"));
    assert_eq!(config.store.url, "file:firmware");
    assert_eq!(config.store.settle, Duration::from_secs(2));
    assert_eq!(config.store.max_size, 512_000_000);
    assert_eq!(config.fuota.chunk_size, 4096);
    assert_eq!(config.fuota.max_message, None);
    assert_eq!(config.fuota.confirm_within, Duration::from_secs(30 * 60));
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(!config.auth.allow_open_network && !config.log.clients);
}

/// The repository's own file, as people start from it.
#[test]
fn the_sample_file_sets_only_defaults() {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../broker.toml")).unwrap();
    let site = Site::new();
    // With every comment sign before a key taken away as well, but for what are examples.
    let uncommented: String = text
        .lines()
        .filter(|line| !line.contains("# an example"))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.contains(" = ") && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(uncommented.lines().filter(|line| line.contains(" = ")).count() > 40, "{uncommented}");
    let sections = |text: &str| {
        let Config { data_dir, mqtt, auth, store, fuota, limits, sync, log, admin, .. } =
            site.load(text, &[]).unwrap();
        let all = (data_dir, mqtt, auth, store, fuota, limits, sync, log, admin);
        format!("{all:#?}")
    };
    for text in [&text, &uncommented] {
        assert_eq!(sections(text), sections(""));
    }
    // The examples are keys and values too.
    let examples = text.lines().filter(|line| line.contains("# an example"));
    for example in examples.filter_map(|line| line.strip_prefix('#')) {
        site.load(&format!("[limits]\n{example}"), &[]).unwrap();
    }
}

#[test]
fn every_key_stands_in_the_documentation_with_its_default() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md"))
            .unwrap();
    for key in KEYS {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", key.name)))
            .unwrap_or_else(|| panic!("docs/configuration.md has no row for {}", key.name));
        let default = match key.default {
            "" => "not set".to_owned(),
            text => format!("`{text}`"),
        };
        assert!(
            row.starts_with(&format!("| `{}` | {default} |", key.name)),
            "{row} should say {default}"
        );
    }
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let name = line.trim_start_matches("| `").split('`').next().unwrap();
        assert!(
            keys::find(name).is_some(),
            "{name} is in docs/configuration.md and not in the code"
        );
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let site = Site::new();
    let config = site
        .load(
            "[mqtt]\nlisten = \"127.0.0.1:1\"\n[fuota]\nchunk_size = 512\n",
            &[
                ("FUOTAD__MQTT__LISTEN", "127.0.0.1:2883,[::1]:2883"),
                ("FUOTAD__STORE__S3__ALLOW_HTTP", "true"),
                ("FUOTAD__STORE__SETTLE", "150ms"),
                ("FUOTAD_URL", "not ours"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
    assert_eq!(
        config.mqtt.listen,
        ["127.0.0.1:2883".parse().unwrap(), "[::1]:2883".parse().unwrap()]
    );
    assert_eq!(config.fuota.chunk_size, 512);
    assert_eq!(config.store.settle, Duration::from_millis(150));
    assert!(config.store.s3.allow_http);
}

#[test]
fn a_listener_takes_one_address_or_a_list() {
    let config =
        load("mqtt.listen = [\"127.0.0.1:0\", \"[::1]:1883\"]\nadmin.listen = \"[::1]:0\"");
    assert_eq!(config.mqtt.listen.len(), 2);
    assert_eq!(config.admin.listen, ["[::1]:0".parse().unwrap()]);
    for bad in ["\"localhost\"", "\"127.0.0.1\"", "5", "[]", "[1883]", "\"\"", "true"] {
        let line = error(&format!("mqtt.listen = {bad}"));
        assert!(line.starts_with("broker.toml: mqtt.listen must be an address"), "{line}");
    }
}

#[test]
fn listeners_of_every_kind() {
    let site = Site::new();
    let text = "[mqtt]\nlisten = \"off\"\n[mqtt.tls]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\ncert = \"c.pem\"\n\
                key = \"k.pem\"\n[mqtt.wss]\nlisten = \"127.0.0.1:0\"\npath = \"/\"";
    let mqtt = site.load(text, &[]).unwrap().mqtt;
    assert!(mqtt.listen.is_empty() && mqtt.ws_listen.is_empty());
    assert_eq!((mqtt.tls_listen.len(), mqtt.wss_listen.len()), (2, 1));
    assert_eq!((mqtt.ws_path.as_str(), mqtt.wss_path.as_str()), ("/mqtt", "/"));
    let files = mqtt.tls.unwrap();
    assert_eq!((files.cert, files.key), (site.path("c.pem"), site.path("k.pem")));
    assert_eq!(files.client_ca, None);
}

#[test]
fn listeners_and_files_go_together() {
    for (text, line) in [
        ("mqtt.listen = \"off\"", "mqtt.listen is off, and no other listener of mqtt.* is set"),
        (
            "mqtt.tls.listen = \"127.0.0.1:0\"\nmqtt.tls.key = \"k\"",
            "mqtt.tls.listen needs mqtt.tls.cert too",
        ),
        (
            "mqtt.wss.listen = \"127.0.0.1:0\"\nmqtt.tls.cert = \"c\"",
            "mqtt.wss.listen needs mqtt.tls.key too",
        ),
        (
            "mqtt.tls.client_ca = \"ca\"",
            "mqtt.tls.client_ca is for mqtt.tls.listen and mqtt.wss.listen, and neither is set",
        ),
        ("admin.tls.cert = \"c\"", "admin.tls.cert needs admin.tls.key too"),
        ("http.tls.key = \"k\"", "http.tls.key needs http.tls.cert too"),
        (
            "http.tls.cert = \"c\"\nhttp.tls.key = \"k\"",
            "http.tls.cert is for http.listen, which is not set",
        ),
        ("admin.tls.key = \"k\"", "admin.tls.key needs admin.tls.cert too"),
        ("mqtt.ws.path = \"mqtt\"", "mqtt.ws.path must be a path such as \"/mqtt\", not \"mqtt\""),
        ("mqtt.ws.path = \"/a?b\"", "mqtt.ws.path must be a path such as \"/mqtt\", not \"/a?b\""),
        (
            "mqtt.tls.listen = \"8883\"",
            "mqtt.tls.listen must be an address with a port, such as \"127.0.0.1:1883\" or \"[::1]:1883\", or a list of them, not \"8883\"",
        ),
    ] {
        assert_eq!(error(text), format!("broker.toml: {line}"));
    }
    for kind in ["tls", "ws", "wss"] {
        let files = if kind == "ws" { "" } else { "mqtt.tls.cert = \"c\"\nmqtt.tls.key = \"k\"\n" };
        let text = format!("{files}mqtt.{kind}.listen = \"0.0.0.0:0\"\n");
        let line = error(&text);
        assert!(
            line.starts_with(&format!("broker.toml: mqtt.{kind}.listen 0.0.0.0:0 can be reached")),
            "{line}"
        );
        load(&(text + "auth.allow_open_network = true"));
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let site = Site::new();
    let config = site.load("data_dir = \"state/here\"", &[]).unwrap();
    assert_eq!(config.data_dir, site.path("state/here"));
    assert_eq!(config.base_dir, site.dir.path());
    let config = site.load("data_dir = \"/var/lib/fuotad\"", &[]).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/fuotad"));
}

#[test]
fn a_named_file_must_exist() {
    let site = Site::new();
    let line = Config::load_with(Some(&site.path("nowhere.toml")), HashMap::new())
        .unwrap_err()
        .to_string();
    assert!(line.ends_with("nowhere.toml: there is no such configuration file"), "{line}");
    let line = Config::load_with(Some(site.dir.path()), HashMap::new()).unwrap_err().to_string();
    assert!(line.contains("cannot be read"), "{line}");
}

#[test]
fn unknown_keys_are_named_and_corrected() {
    assert_eq!(
        error("[mqtt]\nlisen = \"x\""),
        "broker.toml: unknown key mqtt.lisen; did you mean mqtt.listen?"
    );
    assert_eq!(error("colour = 5"), "broker.toml: unknown key colour");
    assert_eq!(error("[colours]\n"), "broker.toml: unknown key colours");
    assert_eq!(
        error("[fouta]\nchunk_size = 5"),
        "broker.toml: unknown key fouta.chunk_size; did you mean fuota.chunk_size?"
    );
    assert_eq!(
        error("[fuota.chunk_size]\nbytes = 5"),
        "broker.toml: fuota.chunk_size takes a value, not a table"
    );
    assert_eq!(error("[mqtt.listen]\n"), "broker.toml: mqtt.listen takes a value, not a table");
    assert_eq!(
        error("mqtt = 5"),
        "broker.toml: mqtt is a section, so it takes keys and not a value"
    );
    assert_eq!(
        Site::new().error("", &[("FUOTAD__MQTT__LISEN", "x")]),
        "FUOTAD__MQTT__LISEN: unknown key mqtt.lisen; did you mean mqtt.listen?"
    );
    // The environment must not hide what the file says.
    assert!(
        Site::new()
            .error("mqtt = 5", &[("FUOTAD__MQTT__LISTEN", "127.0.0.1:1")])
            .contains("is a section")
    );
}

#[test]
fn wrong_types_name_the_key() {
    for (text, line) in [
        ("fuota.chunk_size = \"many\"", "fuota.chunk_size must be a size such as"),
        ("fuota.chunk_size = -1", "fuota.chunk_size must be a size such as"),
        ("fuota.chunk_size = 1.5", "fuota.chunk_size must be a size such as"),
        ("fuota.max_window = 0", "fuota.max_window must be a whole number from 1 to 4096, not 0"),
        ("fuota.max_attempts = [3]", "fuota.max_attempts must be a whole number"),
        ("store.settle = 2", "store.settle must be a duration with its unit"),
        ("store.settle = \"soon\"", "store.settle must be a duration with its unit"),
        ("store.poll_interval = \"0s\"", "store.poll_interval must be a duration"),
        ("store.max_size = \"1.5 GB\"", "store.max_size must be a size"),
        (
            "auth.open_downlink = \"perhaps\"",
            "auth.open_downlink must be true or false, not \"perhaps\"",
        ),
        ("log.clients = 1", "log.clients must be true or false, not 1"),
        ("log.format = \"xml\"", "log.format must be \"text\" or \"json\", not \"xml\""),
        ("log.level = \"loud\"", "log.level must be a level"),
        ("data_dir = 5", "data_dir must be a text, not 5"),
        ("store.url = \"firmware\"", "store.url must be file:DIRECTORY or s3://BUCKET/PREFIX"),
        ("store.url = \"s3://\"", "store.url names no bucket"),
        ("admin.allowed_hosts = [\"https://x\"]", "admin.allowed_hosts takes host names"),
        ("limits.connections = 0", "limits.connections must be a whole number"),
    ] {
        let found = error(text);
        assert!(found.starts_with(&format!("broker.toml: {line}")), "{text}: {found}");
    }
    let line = Site::new().error("", &[("FUOTAD__FUOTA__CHUNK_SIZE", "many")]);
    assert!(line.starts_with("FUOTAD__FUOTA__CHUNK_SIZE: fuota.chunk_size must be"), "{line}");
}

#[test]
fn what_is_not_toml_is_one_line_without_the_text() {
    let line = error("[admin]\ntoken = hunter2-hunter2-hunter2");
    assert!(line.contains("/broker.toml: TOML parse error at line 2"), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
}

#[test]
fn the_documentation_lists_the_keys_that_change_without_a_restart() {
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md"))
            .unwrap();
    let (_, section) = page.split_once("## Reload").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let bullets = section.lines().filter(|line| line.starts_with("- "));
    // What stands before the colon of each; behind it is prose.
    let names: Vec<&str> = bullets
        .flat_map(|line| line.split(':').next().unwrap().split('`').skip(1).step_by(2))
        .collect();
    for key in KEYS {
        let times = names.iter().filter(|name| **name == key.name).count();
        assert_eq!(times, usize::from(key.live), "{}", key.name);
    }
}

#[test]
fn bounds_that_are_off_unless_set() {
    for off in ["", "connections_per_ip = 0", "connections_per_ip = \"off\""] {
        assert_eq!(load(&format!("[limits]\n{off}\n")).limits.connections_per_ip, None, "{off}");
    }
    let limits = load("[limits]\nconnections_per_ip = 20\nconnects_per_second = 500\n").limits;
    assert_eq!((limits.connections_per_ip, limits.connects_per_second), (Some(20), Some(500)));
    assert_eq!(limits.keep_alive, None);
    let limits = load("limits.keep_alive = \"90s\"").limits;
    assert_eq!(limits.keep_alive, Some(Duration::from_secs(90)));
    assert!(error("limits.keep_alive = \"0s\"").contains("from 1s"));
    assert_eq!(limits.session_expiry, None);
    let limits = load("limits.session_expiry = \"7d\"").limits;
    assert_eq!(limits.session_expiry, Some(Duration::from_secs(7 * 86_400)));
    let line = error("[limits]\nconnects_per_second = -1\n");
    assert!(line.contains("limits.connects_per_second must be a whole number"), "{line}");
}

#[test]
fn a_listener_that_is_off_is_none() {
    for off in ["\"\"", "\"off\""] {
        assert!(load(&format!("http.listen = {off}")).http.listen.is_empty(), "{off}");
    }
}

#[test]
fn keys_of_signatures_must_be_there_and_be_keys() {
    assert!(error("store.require_signature = true").contains("needs store.trusted_keys"));
    assert!(error("store.trusted_keys = [\"missing.pub\"]").contains("missing.pub"));
    let site = Site::new();
    std::fs::write(site.path("site.pub"), "hello").unwrap();
    let wrong = site.load("store.trusted_keys = \"site.pub\"", &[]).unwrap_err().to_string();
    assert!(wrong.contains("site.pub") && wrong.contains("no public key"), "{wrong}");
    let key = include_str!("../../../store/tests/fixtures/formats/minisign.pub");
    std::fs::write(site.path("site.pub"), key).unwrap();
    let text = "store.trusted_keys = [\"site.pub\"]\nstore.require_signature = true";
    assert_ne!(site.load(text, &[]).unwrap().store.trust, Arc::default());
}

#[test]
fn how_drops_are_rolled_out_is_left_to_the_mode_unless_named() {
    let fuota = load("").fuota;
    assert_eq!((fuota.drop_rollout, fuota.on_existing, fuota.deploy_drops), (None, None, true));
    let fuota = load(
        "fuota.on_drop = \"catalog\"\nfuota.drop_rollout = \"canary\"\nfuota.on_existing = \"hold\"",
    )
    .fuota;
    assert_eq!(fuota.drop_rollout, Some(fuota::DropRollout::Canary));
    assert_eq!(fuota.on_existing, Some(fuota::OnExisting::Hold));
    assert!(!fuota.deploy_drops);
    assert!(error("fuota.drop_rollout = \"some\"").contains("must be"));
}

#[test]
fn the_network_must_be_meant() {
    for address in ["0.0.0.0:1884", "[::]:1884", "192.0.2.1:1884", "[::ffff:192.0.2.1]:1884"] {
        let line = error(&format!("mqtt.listen = [\"127.0.0.1:1\", \"{address}\"]"));
        assert!(line.contains("set auth.allow_open_network = true"), "{line}");
        load(&format!("mqtt.listen = \"{address}\"\nauth.allow_open_network = true"));
        load(&format!("mqtt.listen = \"{address}\"\nauth.mode = \"token\""));
        let line = error(&format!("admin.listen = \"{address}\""));
        assert!(line.contains("or admin.allow_plain_network = true"), "{line}");
        load(&format!("admin.listen = \"{address}\"\nadmin.allow_plain_network = true"));
        let files = "admin.tls.cert = \"c\"\nadmin.tls.key = \"k\"";
        load(&format!("admin.listen = \"{address}\"\n{files}"));
    }
    load("mqtt.listen = [\"127.5.6.7:0\", \"[::ffff:127.0.0.1]:0\", \"[::1]:0\"]");
}

#[test]
fn secrets_come_inline_or_from_a_file_and_are_never_shown() {
    let site = Site::new();
    fs::write(site.path("token"), "  0123456789abcdef\n").unwrap();
    let config = site.load("admin.token_file = \"token\"", &[]).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "0123456789abcdef");

    let text = "[store.s3]\naccess_key_id = \"hunter2\"\nsecret_access_key_file = \"token\"\n[admin]\ntoken = \"hunter2-hunter2-hunter2\"";
    let config = site.load(text, &[]).unwrap();
    assert_eq!(config.store.s3.secret_access_key.as_ref().unwrap().expose(), "0123456789abcdef");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("0123456789abcdef"), "{shown}");
    let token = config.settings.iter().find(|setting| setting.key == "admin.token").unwrap();
    assert_eq!(token.value.as_deref(), Some("[redacted]"));

    for (text, part) in [
        ("admin.token_file = \"nowhere\"", "admin.token_file"),
        ("admin.token = \"0123456789abcdef\"\nadmin.token_file = \"token\"", "are both set"),
        ("admin.token = \"hunter2\"", "at least 16 characters"),
        ("admin.token = [\"hunter2\"]", "not the given value"),
        ("store.s3.access_key_id = \"hunter2\"", "go together"),
        ("events.webhooks = \"https://h/hunter2\"", "not the given value"),
        ("events.webhooks = [\"https://h/hunter2\"]", "not the given value"),
        ("[events.webhooks]\nurl = \"https://h/hunter2\"", "events.webhooks"),
        ("store.url = \"s3://id:hunter2@bucket\"", "must not carry credentials"),
    ] {
        let line = site.error(text, &[]);
        assert!(line.contains(part) && !line.contains("hunter2"), "{text}: {line}");
    }
    fs::write(site.path("empty"), "\n").unwrap();
    assert!(site.error("admin.token_file = \"empty\"", &[]).contains("is empty"));
}

#[test]
fn plain_http_to_a_bucket_must_be_meant() {
    assert!(
        error("store.s3.endpoint = \"http://minio:9000\"").contains("store.s3.allow_http = true")
    );
    load("store.s3.endpoint = \"http://minio:9000\"\nstore.s3.allow_http = true");
}

#[test]
fn one_look_finds_all_problems_and_shows_one_line() {
    let error =
        Site::new().load("colour = 1\nlog.format = \"xml\"\nhttp.listen = \"x\"", &[]).unwrap_err();
    assert_eq!(error.problems().len(), 3, "{:?}", error.problems());
    assert!(
        error.to_string().ends_with("(and 2 more: `fuotad check-config` lists all)"),
        "{error}"
    );
}

#[test]
fn the_overview_says_where_each_value_comes_from() {
    let config =
        Site::new().load("fuota.chunk_size = 512", &[("FUOTAD__LOG__FORMAT", "json")]).unwrap();
    let of = |name: &str| {
        let setting = config.settings.iter().find(|setting| setting.key == name).unwrap();
        (setting.value.as_deref(), setting.source.as_str())
    };
    assert_eq!(of("fuota.chunk_size"), (Some("512"), "broker.toml"));
    assert_eq!(of("log.format"), (Some("\"json\""), "FUOTAD__LOG__FORMAT"));
    assert_eq!(of("store.settle"), (Some("\"2s\""), "default"));
    assert_eq!(of("fuota.max_window"), (Some("64"), "default"));
    assert_eq!(of("fuota.max_message"), (None, "default"));
}

#[test]
fn rules_are_read_and_each_wrong_one_is_named() {
    let config = load("auth.rules = [\"allow device publish plant/%d/#\", \"deny any all a\"]");
    assert_eq!(config.auth.rules.len(), 2);
    assert_eq!(load("auth.rules = \"deny any all a\"").auth.rules.len(), 1);
    // A comma belongs to the rule, in a list and out of the environment, where lines separate.
    let rule = "allow service,operator subscribe a,b/#";
    assert_eq!(load(&format!("auth.rules = [\"{rule}\"]")).auth.rules, [rule.parse().unwrap()]);
    let both = format!("{rule}\n\ndeny any all a\n");
    let config = Site::new().load("", &[("FUOTAD__AUTH__RULES", &both)]).unwrap();
    assert_eq!(config.auth.rules, [rule.parse().unwrap(), "deny any all a".parse().unwrap()]);
    let line = error("auth.rules = [\"deny any all a\", \"allow everybody all a\"]");
    assert!(line.contains("auth.rules") && line.contains("allow everybody all a"), "{line}");
    assert!(load("auth.strict = true").auth.strict);
    assert!(error("auth.mode = \"closed\"").contains("auth.mode"));
}

/// One look finds all mistakes, whatever else is wrong; what follows from another is none.
#[test]
fn each_mistake_is_listed_beside_the_others() {
    let text = r#"
        limits.inflight = 0
        store.settle = "2"
        log.level = "loud"
        admin.token = "short"
        store.url = "ftp://x"
        store.s3.access_key_id = "alone"
        mqtt.listen = "0.0.0.0:1"
    "#;
    let site = Site::new();
    let error = site.load(text, &[]).unwrap_err();
    let said = error.problems().join("\n");
    for key in [
        "limits.inflight",
        "store.settle",
        "log.level",
        "admin.token",
        "store.url",
        "store.s3.access_key_id",
        "mqtt.listen",
    ] {
        assert!(said.contains(&format!("{key} ")), "{key}: {said}");
    }
    assert_eq!(error.problems().len(), 7, "{said}");
    assert!(error.to_string().contains("(and 6 more"), "{error}");
    // Nobody knows what was meant.
    let line = site.error("auth.mode = \"closed\"\nmqtt.listen = \"0.0.0.0:1\"", &[]);
    assert!(line.contains("auth.mode must be"), "{line}");
}

#[test]
fn an_address_is_named_once() {
    let twice = error("mqtt.listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]");
    assert!(twice.contains("mqtt.listen names 127.0.0.1:1 twice"), "{twice}");
    let two = error("mqtt.listen = \"127.0.0.1:1\"\nmqtt.ws.listen = \"127.0.0.1:1\"");
    assert!(two.contains("mqtt.ws.listen names 127.0.0.1:1, and mqtt.listen names"), "{two}");
    let all = "auth.allow_open_network = true\nmqtt.listen = \"0.0.0.0:1\"\n";
    let held = error(&format!("{all}admin.listen = \"127.0.0.1:1\""));
    assert!(
        held.contains("admin.listen names 127.0.0.1:1, and mqtt.listen names 0.0.0.0"),
        "{held}"
    );
    load("mqtt.listen = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"[::1]:1\", \"127.0.0.1:1\"]");
}

/// JSON has words of its own for text, numbers and what is not there.
#[test]
fn the_overview_is_plain_json() {
    let config = load("log.level = \"warn\"\nmqtt.listen = [\"127.0.0.1:1\"]\nlimits.inflight = 5");
    let json = serde_json::to_value(&config.settings).unwrap();
    let of = |key: &str| {
        let all = json.as_array().unwrap();
        all.iter().find(|one| one["key"] == key).unwrap()["value"].clone()
    };
    assert_eq!(of("log.level"), "warn");
    assert_eq!(of("mqtt.listen"), serde_json::json!(["127.0.0.1:1"]));
    assert_eq!(of("limits.inflight"), 5);
    assert_eq!((of("log.format"), of("log.clients")), ("text".into(), false.into()));
    assert_eq!(of("store.quota"), serde_json::Value::Null);
}
