//! Everything that a dialect puts up with is counted by its name. HTTP's are in `http`.

use std::collections::BTreeMap;

use crate::{
    aws::things,
    native::get,
    support::{Client, Connect, Daemon, Publish, Site},
};

const POST: &str = "tago/data/post";
const STREAM: &str = "streams/AFR_OTA-0102030405060708";

/// Dialect and name of each counter that `/metrics` shows, and its value.
fn counted(daemon: &Daemon) -> BTreeMap<(String, String), u64> {
    let metrics = daemon.admin().request("GET", "/metrics", None).body;
    let counters = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("fuotad_dialect_quirks_total{dialect=\"")?;
        let (dialect, rest) = rest.split_once("\",quirk=\"")?;
        let (name, count) = rest.split_once("\"} ")?;
        Some(((dialect.to_owned(), name.to_owned()), count.parse().unwrap()))
    });
    counters.collect()
}

#[test]
fn each_is_counted_once_where_it_is_met_once() {
    let site = Site::new();
    let daemon = site.start();
    let request = |value: &str| {
        format!(r#"{{"variable":"firmware_request","value":{value},"unit":"index"}}"#)
    };
    let chunk = "v2/fw/request/1/chunk/0";
    let attributes = "v1/devices/me/attributes/request/1";
    let jobs = |verb: &str| things("dev-1", &format!("jobs/{verb}"));
    let stream = |verb: &str| things("dev-1", &format!("{STREAM}/{verb}/json"));
    let mut odd_topic = get(&[0; 8], 512, &[(0, 1)]);
    odd_topic.properties = [&[0x08, 0, 4][..], b"$a/b"].concat();
    let marked = [b"\xEF\xBB\xBF", request("0").as_bytes()].concat();
    for (dialect, name, publish) in [
        ("reference", "index_as_text", Publish::new(POST, request("\"0\""))),
        ("reference", "index_as_decimal", Publish::new(POST, request("5.0"))),
        ("reference", "number_that_is_none", Publish::new(POST, request("NaN"))),
        ("reference", "byte_order_mark", Publish::new(POST, marked)),
        (
            "reference",
            "variable_twice",
            Publish::new(POST, r#"{"variable":"x","variable":"firmware_request","value":0}"#),
        ),
        ("thingsboard", "chunk_size_quoted", Publish::new(chunk, "\"512\"")),
        ("thingsboard", "chunk_size_with_spaces", Publish::new(chunk, " 512")),
        ("thingsboard", "chunk_size_zero", Publish::new(chunk, "0")),
        (
            "thingsboard",
            "keys_with_trailing_comma",
            Publish::new(attributes, r#"{"sharedKeys":"fw_title,"}"#),
        ),
        (
            "thingsboard",
            "keys_with_spaces",
            Publish::new(attributes, r#"{"sharedKeys":"fw_title, fw_size"}"#),
        ),
        ("thingsboard", "attribute_request_not_json", Publish::new(attributes, "fw_title")),
        ("thingsboard", "software_asked_for", Publish::new("v2/sw/request/1/chunk/0", "512")),
        ("aws", "topic_not_served", Publish::new(&things("dev-1", "shadow/get"), "{}")),
        ("aws", "number_as_text", Publish::new(&stream("get"), r#"{"f":"0","l":512}"#)),
        ("aws", "unknown_member", Publish::new(&jobs("get"), r#"{"more":[]}"#)),
        ("aws", "null_member", Publish::new(&jobs("get"), r#"{"clientToken":null}"#)),
        ("aws", "job_request_without_payload", Publish::new(&jobs("get"), " ")),
        ("aws", "describe_without_payload", Publish::new(&stream("describe"), "")),
        ("native", "unknown_field", Publish::new("fuota/v1/up", [1, 99, 1, 0])),
        ("native", "text_not_utf8", Publish::new("fuota/v1/up", [1, 4, 1, 0xff])),
        ("native", "empty_range", get(&[0; 8], 512, &[(0, 1), (4, 0)])),
        ("native", "response_topic_not_usable", odd_topic),
    ] {
        let before = counted(&daemon);
        let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1").v5());
        device.publish(&publish.qos(1));
        device.disconnect();
        let mut expected = before;
        *expected.get_mut(&(dialect.into(), name.into())).expect(name) += 1;
        assert_eq!(counted(&daemon), expected, "{dialect} {name}");
    }

    // Messages of another dialect than that in which the connection began.
    let hello = Publish::new("fuota/v1/up", [1]);
    let others = [
        ("reference", Publish::new(POST, request("0"))),
        ("thingsboard", Publish::new(attributes, "{}")),
        ("aws", Publish::new(&jobs("get"), "{}")),
    ];
    let mut first = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    first.publish(&hello.clone().qos(1));
    for (_, publish) in &others {
        first.publish(&publish.clone().qos(1));
    }
    let mut second = Client::connect(daemon.mqtt(), &Connect::id("dev-2"));
    second.publish(&others[0].1.clone().qos(1));
    second.publish(&hello.qos(1));

    // What an SDK of AWS says about itself in its CONNECT.
    let username = Some("?SDK=PythonV2&Version=1.0.0".to_owned());
    Client::connect(daemon.mqtt(), &Connect { username, ..Connect::id("dev-3") });

    let mut counted = counted(&daemon);
    counted.retain(|(dialect, _), _| dialect != "http");
    let missed: Vec<_> = counted.iter().filter(|(_, count)| **count != 1).collect();
    assert!(missed.is_empty(), "met once, or never looked for: {missed:?}");
}
