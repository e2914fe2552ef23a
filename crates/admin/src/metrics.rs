//! `/metrics`: the counters in the text form of Prometheus, version 0.0.4.
//!
//! Units stand in the names, and no label has values that a client or a file can choose: states,
//! reasons and parts are words of this program.

use std::fmt::{Display, Write as _};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use fuota::{FirmwareState, Latencies, SiteStatus};
use hook::{Counters, Distribution, histogram::BOUNDS_MICROS};

use crate::{
    extract::{Nothing, Query},
    health::Check,
    routes::App,
};

/// GET.
pub async fn metrics(State(app): State<App>, Query(Nothing {}): Query<Nothing>) -> Response {
    let text = Snapshot {
        version: &app.version,
        uptime_seconds: app.started.elapsed().as_secs(),
        broker: app.broker.counters(),
        site: app.service.status(),
        publish_time: app.broker.publish_time(),
        latencies: app.service.latencies(),
        deployments: app.service.deployment_counts().into_iter().collect(),
        frozen: app.service.frozen().frozen,
        quirks: app.service.quirks(),
        checks: (app.readiness)(),
    }
    .text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Everything that is shown, at one moment.
struct Snapshot<'a> {
    version: &'a str,
    uptime_seconds: u64,
    broker: Counters,
    site: SiteStatus,
    publish_time: Distribution,
    latencies: Latencies,
    deployments: Vec<(&'static str, usize)>,
    frozen: bool,
    /// Dialect, name, and how often it was met.
    quirks: Vec<(&'static str, &'static str, u64)>,
    checks: Vec<Check>,
}

impl Snapshot<'_> {
    fn text(&self) -> String {
        let mut out = Text::default();
        self.process(&mut out);
        self.broker(&mut out);
        self.fleet(&mut out);
        self.quirks(&mut out);
        out.histogram(
            "fuotad_mqtt_publish_duration_seconds",
            "From the read of an ordinary publish to its acknowledgement, at QoS 0 to its hand-over to its receivers.",
            &self.publish_time,
        );
        out.histogram(
            "fuotad_block_duration_seconds",
            "From a request of a device to its block in the outbox of its connection.",
            &self.latencies.block,
        );
        out.histogram(
            "fuotad_store_read_duration_seconds",
            "Reads of blocks that were not in the cache.",
            &self.latencies.store_read,
        );
        out.histogram(
            "fuotad_database_commit_duration_seconds",
            "Commits of the database.",
            &self.latencies.commit,
        );
        out.0
    }

    fn process(&self, out: &mut Text) {
        let version = ("version", self.version);
        out.family(
            "fuotad_build_info",
            "gauge",
            "The version that runs; always 1.",
            [(Some(version), 1)],
        );
        out.gauge("fuotad_uptime_seconds", "Since the start.", self.uptime_seconds);
        let parts = self
            .checks
            .iter()
            .map(|check| (Some(("part", check.name)), u8::from(check.result.is_ok())));
        out.family(
            "fuotad_ready",
            "gauge",
            "1 where the part is up, 0 where /readyz says why not.",
            parts,
        );
        out.gauge(
            "fuotad_frozen",
            "1 while all offers of the site are stopped.",
            u8::from(self.frozen),
        );
    }

    fn broker(&self, out: &mut Text) {
        // Taken apart by name, so that a new counter cannot be forgotten here.
        let Counters {
            connections,
            sessions,
            subscriptions,
            retained_messages,
            connects,
            connects_refused,
            connections_refused,
            connections_refused_per_ip,
            connects_delayed,
            connects_refused_rate,
            publishes_received,
            publishes_consumed,
            refused,
            deliveries,
            outbox_messages,
            dropped,
            not_retained,
            direct,
            routed,
            log_bytes,
            log_waiting,
            router_renewals,
            protocol_errors,
            slow_clients,
        } = self.broker;
        out.gauge("fuotad_mqtt_connections", "Connections that live now.", connections);
        out.gauge(
            "fuotad_mqtt_sessions",
            "Sessions, those of clients that are away included.",
            sessions,
        );
        out.gauge("fuotad_mqtt_subscriptions", "Subscriptions of all sessions.", subscriptions);
        out.gauge("fuotad_mqtt_retained_messages", "Retained messages.", retained_messages);
        out.counter("fuotad_mqtt_connects_total", "CONNECTs that were accepted.", connects);
        out.counter(
            "fuotad_mqtt_connects_delayed_total",
            "CONNECTs that waited under limits.connects_per_second.",
            connects_delayed,
        );
        let others = connects_refused.saturating_sub(
            connections_refused + connections_refused_per_ip + connects_refused_rate,
        );
        out.family(
            "fuotad_mqtt_connects_refused_total",
            "counter",
            "CONNECTs that were refused.",
            [
                ("login_or_protocol", others),
                ("connections", connections_refused),
                ("connections_per_ip", connections_refused_per_ip),
                ("connects_per_second", connects_refused_rate),
            ]
            .map(|(reason, number)| (Some(("reason", reason)), number)),
        );
        out.counter(
            "fuotad_mqtt_publishes_received_total",
            "Publishes that arrived.",
            publishes_received,
        );
        out.counter(
            "fuotad_mqtt_publishes_consumed_total",
            "Publishes that were requests of devices and went no further.",
            publishes_consumed,
        );
        out.counter(
            "fuotad_mqtt_refused_total",
            "Publishes and subscriptions that were not allowed.",
            refused,
        );
        out.counter(
            "fuotad_mqtt_deliveries_total",
            "Ordinary messages handed to a connection's writer.",
            deliveries,
        );
        out.counter(
            "fuotad_mqtt_outbox_messages_total",
            "Messages written past the routing: blocks, manifests, errors.",
            outbox_messages,
        );
        out.counter(
            "fuotad_mqtt_dropped_total",
            "Ordinary messages dropped: a queue was full, or they expired.",
            dropped,
        );
        out.counter(
            "fuotad_mqtt_not_retained_total",
            "Retained publishes for which the limits left no room: refused (MQTT 5, QoS 1 and 2), or delivered and not retained.",
            not_retained,
        );
        out.family(
            "fuotad_mqtt_copies_total",
            "counter",
            "QoS 0 copies, by the way that they took.",
            [(Some(("way", "direct")), direct), (Some(("way", "routed")), routed)],
        );
        out.counter(
            "fuotad_mqtt_log_written_bytes_total",
            "Bytes written to the durable log.",
            log_bytes,
        );
        out.gauge(
            "fuotad_mqtt_log_waiting_bytes",
            "Bytes that are to be written to the durable log and are not yet.",
            log_waiting,
        );
        out.counter(
            "fuotad_mqtt_router_renewals_total",
            "Times that a dead or stuck router was replaced.",
            router_renewals,
        );
        out.counter(
            "fuotad_mqtt_protocol_errors_total",
            "Connections ended because the client broke the protocol.",
            protocol_errors,
        );
        out.counter(
            "fuotad_mqtt_slow_clients_total",
            "Connections ended because the client read or sent too slowly.",
            slow_clients,
        );
    }

    fn quirks(&self, out: &mut Text) {
        const NAME: &str = "fuotad_dialect_quirks_total";
        out.head(NAME, "counter", "What was tolerated of devices, by its name in docs/dialects.");
        for (dialect, quirk, met) in &self.quirks {
            let labels = format_args!("dialect=\"{dialect}\",quirk=\"{quirk}\"");
            out.line(format_args!("{NAME}{{{labels}}} {met}"));
        }
    }

    fn fleet(&self, out: &mut Text) {
        let site = &self.site;
        out.gauge(
            "fuotad_window_closed",
            "1 while the site's maintenance window is closed: nothing new is offered.",
            u8::from(site.window_closed.is_some()),
        );
        out.gauge(
            "fuotad_clock_wrong",
            "1 while the wall clock cannot be right: windows are closed.",
            u8::from(site.clock_problem.is_some()),
        );
        out.gauge("fuotad_devices", "Devices that are known.", site.devices.total);
        out.gauge(
            "fuotad_devices_registered",
            "Devices that are registered.",
            site.devices.registered,
        );
        out.gauge("fuotad_devices_online", "Devices that are connected.", site.devices.online);
        let of = |name: &&'static str| {
            (Some(("state", *name)), site.states.get(name).copied().unwrap_or(0))
        };
        out.family(
            "fuotad_device_updates",
            "gauge",
            "Devices by the state of their newest offer.",
            fuota::UPDATE_STATES.iter().map(of),
        );
        let of = |name: &&'static str| {
            (Some(("state", *name)), site.firmware.get(name).copied().unwrap_or(0))
        };
        out.family(
            "fuotad_firmware_files",
            "gauge",
            "Files by state.",
            // Each has a line, also where there is none in it.
            FirmwareState::NAMES.iter().map(of),
        );
        let of = |name: &&'static str| {
            let count = self.deployments.iter().find(|(state, _)| state == name);
            (Some(("state", *name)), count.map_or(0, |(_, count)| *count))
        };
        out.family(
            "fuotad_deployments",
            "gauge",
            "Deployments by state.",
            fuota::DEPLOYMENT_STATES.iter().map(of),
        );
        out.counter("fuotad_blocks_total", "Blocks queued to devices.", site.blocks);
        out.counter(
            "fuotad_block_bytes_total",
            "Firmware bytes in those, before encoding.",
            site.block_bytes,
        );
        out.counter("fuotad_manifests_total", "Manifests queued to devices.", site.manifests);
        out.counter("fuotad_device_errors_total", "Errors sent to devices.", site.errors);
        out.counter(
            "fuotad_store_batches_total",
            "Changes of the store that were acted on.",
            site.batches,
        );
        out.counter(
            "fuotad_forged_total",
            "Publishes and subscriptions refused as forged or not allowed.",
            site.refused,
        );
        out.counter("fuotad_failed_logins_total", "Logins that were refused.", site.failed_logins);
    }
}

/// The text form.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help, [(None, value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help, [(None, value)]);
    }

    /// Values and labels are words of this program: nothing in them needs to be escaped.
    fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Option<(&'a str, &'a str)>, V)>,
    ) {
        self.head(name, kind, help);
        for (label, value) in samples {
            match label {
                Some((key, word)) => self.line(format_args!("{name}{{{key}=\"{word}\"}} {value}")),
                None => self.line(format_args!("{name} {value}")),
            }
        }
    }

    fn histogram(&mut self, name: &str, help: &str, all: &Distribution) {
        self.head(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in BOUNDS_MICROS.iter().zip(all.buckets) {
            below += count;
            let seconds = *bound as f64 / 1e6;
            self.line(format_args!("{name}_bucket{{le=\"{seconds}\"}} {below}"));
        }
        let count: u64 = all.buckets.iter().sum();
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {}", all.micros as f64 / 1e6));
        self.line(format_args!("{name}_count {count}"));
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, time::Duration};

    fn text() -> String {
        let histogram = hook::Histogram::default();
        histogram.observe(Duration::from_micros(30));
        histogram.observe(Duration::from_secs(60));
        Snapshot {
            version: "1.2.3",
            uptime_seconds: 5,
            broker: Counters { connects_refused: 7, connections_refused: 2, ..Counters::default() },
            site: SiteStatus {
                ready: true,
                store_problem: None,
                database_problem: None,
                clock_problem: None,
                window_closed: None,
                devices: fuota::DeviceCounts::default(),
                states: [("downloading", 3)].into(),
                firmware: [("held", 1)].into(),
                blocks: 9,
                block_bytes: 36_864,
                manifests: 1,
                errors: 0,
                batches: 1,
                refused: 0,
                failed_logins: 0,
            },
            publish_time: Distribution::default(),
            latencies: Latencies { block: histogram.read(), ..Latencies::default() },
            deployments: vec![("paused", 2)],
            frozen: false,
            quirks: vec![("aws", "number_as_text", 4)],
            checks: vec![
                Check { name: "mqtt", result: Ok(()) },
                Check { name: "store", result: Err("gone".into()) },
            ],
        }
        .text()
    }

    #[test]
    fn says_what_is() {
        let text = text();
        for line in [
            "fuotad_build_info{version=\"1.2.3\"} 1",
            "fuotad_ready{part=\"mqtt\"} 1",
            "fuotad_ready{part=\"store\"} 0",
            "fuotad_mqtt_connects_refused_total{reason=\"login_or_protocol\"} 5",
            "fuotad_device_updates{state=\"downloading\"} 3",
            "fuotad_device_updates{state=\"failed\"} 0",
            "fuotad_deployments{state=\"paused\"} 2",
            "fuotad_block_bytes_total 36864",
            "fuotad_dialect_quirks_total{dialect=\"aws\",quirk=\"number_as_text\"} 4",
            "fuotad_block_duration_seconds_bucket{le=\"0.000025\"} 0",
            "fuotad_block_duration_seconds_bucket{le=\"0.00005\"} 1",
            "fuotad_block_duration_seconds_bucket{le=\"10\"} 1",
            "fuotad_block_duration_seconds_bucket{le=\"+Inf\"} 2",
            "fuotad_block_duration_seconds_sum 60.00003",
            "fuotad_block_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|has| has == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn names_have_their_form_and_each_is_described_once() {
        let text = text();
        let mut families = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(families.insert(name), "{name} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert_eq!(kind == "histogram", name.ends_with("_duration_seconds"), "{name}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| families.contains(name)))
                .unwrap_or(name);
            assert!(families.contains(family), "{name} is not described");
        }
    }

    /// Whoever renames one breaks the rules that wake people at night.
    #[test]
    fn the_alert_rules_ask_for_what_there_is() {
        let text = text();
        let known: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.trim_start_matches("# TYPE ").split(['{', ' ']).next())
            .collect();
        let rules = include_str!("../../../deploy/alerts.yml");
        let mut asked = BTreeSet::new();
        for word in rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("fuotad_") {
                assert!(
                    known.contains(word),
                    "deploy/alerts.yml asks for {word}, which is not there"
                );
                asked.insert(word);
            }
        }
        assert!(asked.len() > 10, "{asked:?}");
        // And their labels have values that are there; `job` is Prometheus' own.
        let labels = rules.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        for (labels, _) in labels.filter(|(labels, _)| labels.contains("=\"")) {
            for pair in labels.split(',').filter(|pair| !pair.starts_with("job=")) {
                assert!(text.contains(pair.trim()), "deploy/alerts.yml asks for {pair}");
            }
        }
    }
}
