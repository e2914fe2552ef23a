//! What one client can do to a router that is exposed to it, row by row
//! (`docs/decisions/0002-rumqttd-seam.md`), and the tests that see it not happen here.

use std::path::Path;

/// What a stock rumqttd 0.20 does, and the tests here, by file and name.
const ROWS: &[(&str, &[&str])] = &[
    (
        "a topic whose first character is not ASCII panics the router, live and retained",
        &[
            "wire/publish.rs topics_are_taken_as_they_are",
            "wire/publish.rs a_retained_topic_of_another_script_reaches_later_subscribers",
        ],
    ),
    (
        "the only member of a shared subscription leaves a message unacknowledged, or unsubscribes \
         something else: panic",
        &["wire/shared.rs the_only_member_may_come_and_go"],
    ),
    (
        "a slow subscriber is taken over, and the old side wakes a freed id: panic",
        &["wire/session.rs a_stuck_connection_can_be_taken_over"],
    ),
    (
        "a PUBLISH with properties reaches a subscriber of 3.1.1: its listener is dead",
        &["wire/publish.rs properties_travel_to_v5_and_are_stripped_for_v4"],
    ),
    (
        "a client sends CONNACK, SUBACK or UNSUBACK: the same",
        &["wire/malformed.rs packets_of_servers_end_the_connection"],
    ),
    (
        "with topic aliases, messages arrive under the wrong topic",
        &["wire/aliases.rs a_client_may_set_them"],
    ),
    (
        "two shared filters of one group name lose half of the messages",
        &[
            "wire/shared.rs one_client_with_two_filters_of_a_group_name",
            "wire/shared.rs groups_and_plain_subscribers_do_not_take_from_each_other",
        ],
    ),
    (
        "of more than 200 retained messages the rest are lost",
        &["wire/retain.rs thousands_of_matches_all_arrive"],
    ),
    (
        "an empty message that is not retained erases the retained one",
        &["wire/retain.rs only_an_empty_retained_message_erases"],
    ),
    (
        "UNSUBSCRIBE is answered never, or several times, or leaves the subscription",
        &[
            "wire/unsubscribe.rs one_answer_with_a_code_for_each_filter",
            "wire/unsubscribe.rs a_resumed_session_can_unsubscribe",
        ],
    ),
    (
        "SUBSCRIBE again brings no retained messages and leaves the old QoS",
        &[
            "wire/retain.rs the_last_one_meets_each_new_subscription",
            "wire/subscribe.rs subscribing_again_replaces_the_options",
        ],
    ),
    (
        "a message is delivered at the subscription's QoS instead of the lower",
        &["wire/subscribe.rs delivery_has_the_lower_qos"],
    ),
    (
        "QoS 2: a copy is delivered twice, PUBREL with properties ignored, an unknown id ends the \
         connection",
        &[
            "wire/qos.rs qos_2_is_delivered_once",
            "wire/qos.rs qos_2_is_delivered_once_across_connections",
            "wire/qos.rs an_unknown_release_is_answered",
        ],
    ),
    (
        "PUBACK out of order ends the connection, ids end at 100, Receive Maximum is not read",
        &[
            "wire/qos.rs acknowledgements_out_of_order_are_no_harm",
            "wire/qos.rs packet_ids_go_on_and_are_never_zero",
            "wire/flow_control.rs no_more_is_in_flight_than_the_client_takes",
        ],
    ),
    (
        "keep alive 0, two versions on one port, client ids with + $ # /, and $SYS/# are refused",
        &[
            "wire/connect.rs keep_alive_zero_is_accepted",
            "wire/connect.rs client_ids_may_have_any_character",
            "wire/session.rs the_newer_connection_takes_over",
            "wire/statistics.rs statistics_can_be_read_but_not_written",
        ],
    ),
    (
        "topics and filters that are none are accepted",
        &[
            "wire/publish.rs invalid_topics_end_the_connection",
            "wire/subscribe.rs every_filter_gets_a_code_in_order",
            "wire/subscribe.rs malformed_subscribes_end_the_connection",
            "wire/shared.rs bad_names_are_refused",
        ],
    ),
    (
        "a second CONNECT is ignored, a DISCONNECT of one byte publishes the will, a SUBSCRIBE \
         without property length is dropped",
        &[
            "wire/connect.rs a_second_connect_ends_the_connection",
            "wire/will.rs an_orderly_goodbye_deletes_it",
            "wire/disconnect.rs clients_may_leave_in_every_form",
            "wire/subscribe.rs malformed_subscribes_end_the_connection",
        ],
    ),
    (
        "session expiry, No Local, Retain As Published, Retain Handling, Receive Maximum and \
         Maximum Packet Size are not there; a retained message ages when it is read",
        &[
            "wire/session.rs sessions_expire",
            "wire/subscribe.rs no_local_keeps_ones_own_messages_away",
            "wire/retain.rs retain_as_published_decides_the_flag_of_live_messages",
            "wire/retain.rs retain_handling_decides_when_they_are_sent",
            "wire/flow_control.rs no_more_is_in_flight_than_the_client_takes",
            "wire/flow_control.rs larger_packets_than_the_client_takes_are_not_sent",
            "wire/expiry.rs the_interval_counts_down",
        ],
    ),
    (
        "filters, topics and links are never freed",
        &[
            "../../../tests/memory.rs filters_and_topics_leave_nothing",
            "../../../tests/memory.rs sessions_leave_nothing",
            "faults.rs the_broker_goes_on_and_loses_no_promise",
        ],
    ),
];

#[test]
fn each_row_has_its_tests() {
    assert_eq!(ROWS.len(), 19);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (row, names) in ROWS {
        assert!(!names.is_empty(), "{row}");
        for name in *names {
            let (file, function) = name.split_once(' ').unwrap();
            let text = std::fs::read_to_string(tests.join(file)).unwrap();
            assert!(text.contains(&format!("#[test]\nfn {function}() {{")), "{row}: no {name}");
        }
    }
}
