use std::{sync::atomic::Ordering, time::Duration};

use hook::{Identity, Qos, Subscription};

use crate::harness::{Site, TOPIC, request, token_request};

fn image(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31).wrapping_add((at / 256) as u8) ^ seed)
        .collect()
}

#[tokio::test]
async fn a_dropped_file_reaches_a_connected_device_byte_for_byte() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    let firmware = image(1050, 1);
    site.drop_file("fw-1.2.0.bin", &firmware).await;
    let manifest = device.manifest().await;
    assert_eq!(manifest["total_size"], 1050);
    assert_eq!(manifest["total_chunks"], 11);
    assert_eq!(manifest["chunk_size"], 100);
    assert_eq!(manifest["version"], "1.2.0");
    assert_eq!(manifest["sha256"], store::Digest::of(&firmware).to_string());
    assert_eq!(device.download(0, 11).await, firmware);
    let view = site.until_state("dev-1", "downloaded").await;
    assert_eq!((view.progress.chunks_sent, view.progress.chunks_total), (11, 11));
}

#[tokio::test]
async fn an_offline_device_gets_it_when_it_connects_also_after_a_restart() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(250, 2)).await;
    let site = site.restart(|_| {}).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    assert_eq!(device.manifest().await["total_chunks"], 3);
    device.end();
    // And without a SUBSCRIBE, where it resumes its session.
    let resumed = [Subscription { filter: TOPIC.into(), qos: Qos::AtLeastOnce }];
    let mut other = site.session(request("dev-2"), Identity::ANONYMOUS, u32::MAX, &resumed);
    let message = other.unwritten().await;
    assert_eq!(message.qos, Qos::AtLeastOnce);
}

#[tokio::test]
async fn rule_14_a_request_after_a_restart_is_answered_from_the_pin() {
    let site = Site::start().await;
    let firmware = image(1000, 3);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    let mut got = device.download(0, 4).await;
    device.end();
    // Another chunk size, and a newer file beside it.
    let site = site.restart(|settings| settings.chunk_size = 64).await;
    site.drop_file("fw-9.0.0.bin", &image(1000, 4)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    got.extend(device.download(4, 10).await);
    assert_eq!(got, firmware);
    // Rule 15: the different, newer one is offered now, in the new size.
    let manifest = device.manifest().await;
    assert_eq!(
        (manifest["version"].as_str(), manifest["chunk_size"].as_u64()),
        (Some("9.0.0"), Some(64))
    );
}

#[tokio::test]
async fn rule_15_an_overwritten_file_answers_the_next_request_with_its_manifest() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 5)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 3).await;
    let new = image(700, 6);
    site.drop_file("fw.bin", &new).await;
    device.nothing();
    device.ask(3);
    let manifest = device.manifest().await;
    assert_eq!(manifest["total_size"], 700);
    assert_eq!(device.download(0, 7).await, new);
}

#[tokio::test]
async fn rule_15_a_manifest_lost_with_its_connection_answers_the_next_first_request() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 5)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 3).await;
    device.end();
    site.drop_file("fw.bin", &image(700, 6)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    device.ask(3);
    assert_eq!(device.manifest().await["total_size"], 700);
}

#[tokio::test]
async fn rule_15_a_hundred_replacements_never_mix_two_images() {
    let site = Site::start().await;
    let mut last = image(500, 0);
    site.drop_file("fw.bin", &last).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    let mut expected = device.manifest().await["sha256"].clone();
    let (mut got, mut next) = (Vec::new(), 0);
    device.ask(next);
    for round in 1..=100u8 {
        last = image(500, round);
        site.drop_file("fw.bin", &last).await;
        for _ in 0..2 {
            let message = device.next().await;
            if message["variable"] == "firmware_manifest" {
                expected = message["metadata"]["sha256"].clone();
                (next, got) = (0, Vec::new());
            } else {
                assert_eq!(message["value"], next);
                let data = message["metadata"]["data"].as_str().unwrap();
                got.extend(base64_simd::STANDARD.decode_to_vec(data).unwrap());
                next = (next + 1) % 5;
                if next == 0 {
                    assert_eq!(store::Digest::of(&got).to_string(), expected.as_str().unwrap());
                    got.clear();
                    break; // it has a whole image and waits for the next manifest
                }
            }
            device.ask(next);
        }
        if next == 0 && got.is_empty() {
            let message = device.next().await;
            expected = message["metadata"]["sha256"].clone();
            device.ask(0);
        }
    }
}

#[tokio::test]
async fn rule_16_after_a_reconnect_only_silence_gets_the_manifest() {
    let site = Site::with(|settings| settings.resume_grace = Duration::from_millis(50)).await;
    site.drop_file("fw.bin", &image(1000, 7)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 2).await;
    device.end();
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.nothing();
    assert_eq!(device.manifest().await["total_chunks"], 10);
    assert_eq!(
        site.service.device("dev-1").unwrap().firmware.unwrap().attempt,
        1,
        "it is the same offer"
    );
}

#[tokio::test]
async fn rule_16_a_device_that_stops_asking_is_nudged_three_times() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_millis(20)).await;
    site.drop_file("fw.bin", &image(1000, 8)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    for _ in 0..4 {
        device.manifest().await;
    }
    // A fifth would come before this other device's fourth.
    let mut other = site.connect("dev-2").await;
    other.subscribe(TOPIC);
    for _ in 0..4 {
        other.manifest().await;
    }
    device.nothing();
}

#[tokio::test]
async fn rule_16_none_while_a_request_is_unanswered_and_none_twice() {
    let site = Site::with(|settings| settings.nudge_after = Duration::from_millis(20)).await;
    site.drop_file("fw.bin", &image(1000, 8)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.ask(0);
    let block = device.unwritten().await; // never written
    let mut other = site.connect("dev-2").await;
    other.subscribe(TOPIC);
    for _ in 0..4 {
        other.manifest().await;
    }
    device.nothing();
    device.subscribe(TOPIC);
    device.nothing();
    drop(block);
}

#[tokio::test]
async fn rule_17_the_window_and_an_image_asked_for_in_a_loop() {
    let site = Site::with(|settings| settings.max_window = 4).await;
    site.drop_file("fw.bin", &image(1000, 9)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 1).await;
    for index in 0..6 {
        device.ask(index);
    }
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(device.unwritten().await);
    }
    device.nothing();
    let blocks = answers.iter().filter(|answer| answer.receipt.is_some()).count();
    assert_eq!(blocks, 4, "and one error for the two beyond");
    for answer in answers {
        if let Some((receipt, tag)) = answer.receipt {
            receipt.written(tag);
        }
    }
    // Five of thirty blocks are asked for.
    for turn in 0..3 {
        for index in 0..10 {
            if turn == 2 && index == 5 {
                break;
            }
            device.ask(index);
            device.block().await;
        }
    }
    device.ask(5);
    assert!(device.error().await.contains("loop"));
    let view = site.until_state("dev-1", "failed").await;
    assert_eq!(view.reason.as_deref(), Some("loop"));
    device.ask(5);
    assert!(device.error().await.contains("no firmware"), "nothing more on this connection");
}

fn ask_for(metadata: &str) -> String {
    format!(r#"{{"variable":"firmware_request","value":0,"metadata":{metadata}}}"#)
}

#[tokio::test]
async fn rule_17_one_request_for_many_blocks_is_answered_window_by_window() {
    let site = Site::with(|settings| settings.max_window = 4).await;
    let firmware = image(1000, 30);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    assert_eq!(device.manifest().await["window"], 4);
    // Three times as many as there are.
    device.publish(ask_for(r#"{"count":30}"#));
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(device.unwritten().await);
    }
    device.nothing(); // until one is written
    let (receipt, tag) = first.remove(0).receipt.unwrap();
    receipt.written(tag);
    assert_eq!(device.block().await.0, 4);
    for message in first {
        let (receipt, tag) = message.receipt.unwrap();
        receipt.written(tag);
    }
    for index in 5..10 {
        assert_eq!(device.block().await.0, index);
    }
    device.nothing();
    site.until_state("dev-1", "downloaded").await;
}

#[tokio::test]
async fn a_device_that_comes_back_asks_for_what_is_missing_and_gets_no_more() {
    let site = Site::with(|settings| settings.flush_interval = Duration::from_secs(3600)).await;
    let firmware = image(1000, 31);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    let mut got = device.download(0, 2).await;
    device.ask(3);
    let third = device.block().await.1;
    // The broker dies, and with it its marks.
    let site = site.crash().await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.publish(ask_for(r#"{"missing":[2,4,5,6,7,8,9,10]}"#));
    got.extend(device.block().await.1);
    got.extend(third);
    for index in 4..10 {
        let (found, data) = device.block().await;
        assert_eq!(found, index);
        got.extend(data);
    }
    assert_eq!(got, firmware);
    device.nothing();
}

#[tokio::test]
async fn rule_15_many_blocks_asked_for_end_with_the_new_manifest() {
    let site = Site::with(|settings| settings.max_window = 2).await;
    site.drop_file("fw.bin", &image(1000, 32)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.publish(ask_for(r#"{"count":10}"#));
    let (first, second) = (device.unwritten().await, device.unwritten().await);
    let new = image(700, 33);
    site.drop_file("fw.bin", &new).await;
    for message in [first, second] {
        let (receipt, tag) = message.receipt.unwrap();
        receipt.written(tag);
    }
    assert_eq!(device.manifest().await["total_size"], 700);
    assert_eq!(device.download(0, 7).await, new);
    device.nothing();
}

#[tokio::test]
async fn rule_17_a_full_outbox_drops_no_block() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 10)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 1).await;
    device.sink.room.store(0, Ordering::Relaxed);
    for index in 1..4 {
        device.ask(index);
    }
    device.nothing();
    device.sink.room.store(usize::MAX, Ordering::Relaxed);
    for index in 1..4 {
        assert_eq!(device.block().await.0, index);
    }
}

#[tokio::test]
async fn rule_18_the_chunk_shrinks_so_that_the_publish_fits() {
    let site = Site::with(|settings| settings.chunk_size = 4096).await;
    let firmware = image(9000, 11);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect_limited(request("dev-1"), 1024).await.unwrap();
    device.subscribe(TOPIC);
    let manifest = device.manifest().await;
    let chunk = manifest["chunk_size"].as_u64().unwrap();
    assert!((500..768).contains(&chunk), "{chunk}");
    device.ask(0);
    let block = device.unwritten().await;
    assert!(block.payload.len() + TOPIC.len() + 8 <= 1024);
    device.end();
    // The next connection takes less still: the pinned chunk does not fit it.
    let mut device = site.connect_limited(request("dev-1"), 512).await.unwrap();
    device.subscribe(TOPIC);
    device.ask(1);
    let manifest = device.manifest().await;
    let (smaller, total) =
        (manifest["chunk_size"].as_u64().unwrap(), manifest["total_chunks"].as_u64().unwrap());
    assert!(smaller < chunk);
    assert_eq!(device.download(0, total as u32).await, firmware);
    // One that can take nothing hears why.
    let mut tiny = site.connect_limited(request("dev-2"), 100).await.unwrap();
    tiny.ask(0);
    assert!(tiny.error().await.contains("100 bytes"));
}

#[tokio::test]
async fn bad_indices_get_a_sentence_and_no_bytes() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 12)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    for (value, why) in [
        ("10", "0 to 9"),
        ("-1", "negative"),
        ("1.5", "whole"),
        ("\"x\"", "not a number"),
        ("NaN", "not a number"),
    ] {
        device.publish(format!(r#"{{"variable":"firmware_request","value":{value},"group":"g"}}"#));
        let message = device.next().await;
        assert_eq!((&message["variable"], &message["group"]), (&"fuota_error".into(), &"g".into()));
        assert!(message["value"].as_str().unwrap().contains(why), "{message}");
    }
    device.publish(r#"{"variable":"firmware_request","value":"5"}"#);
    assert_eq!(device.block().await.0, 5);
}

#[tokio::test]
async fn who_has_no_offer_hears_why_or_gets_one() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    device.ask(0);
    assert!(device.error().await.contains("no firmware"));
    site.drop_file("devices/dev-1/fw.bin", &image(150, 13)).await;
    device.nothing(); // it has no downlink
    device.ask(1);
    assert_eq!(device.block().await.1, image(150, 13)[100..]);
}

#[tokio::test]
async fn rule_2_a_session_without_identity_is_served_and_not_remembered() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(150, 14)).await;
    let anonymous = hook::ConnectRequest { assigned_id: true, ..request("assigned-1") };
    let mut session = site.connect_as(anonymous).await.unwrap();
    session.subscribe(TOPIC);
    session.manifest().await;
    assert_eq!(session.download(0, 2).await, image(150, 14));
    session.subscribe(TOPIC);
    session.nothing();
    assert!(site.service.devices(&Default::default()).is_empty());
}

#[tokio::test]
async fn rule_3_blocks_go_to_who_asked_and_offers_to_the_newest_downlink() {
    let site = Site::start().await;
    let token = "0123456789abcdef-token";
    let mut first = site.connect_as(token_request(token)).await.unwrap();
    let mut second = site.connect_as(token_request(token)).await.unwrap();
    first.subscribe(TOPIC);
    second.subscribe(TOPIC);
    site.drop_file("fw.bin", &image(1000, 15)).await;
    second.manifest().await;
    first.nothing();
    first.ask(2);
    assert_eq!(first.block().await.0, 2);
    second.nothing();
}

#[tokio::test]
async fn rule_10_a_removed_file_is_offered_no_more_and_a_running_transfer_finishes() {
    let site = Site::start().await;
    let firmware = image(300, 16);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.download(0, 1).await;
    site.remove_file("fw.bin").await;
    assert_eq!(device.download(1, 3).await, firmware[100..]);
    let mut other = site.connect("dev-2").await;
    other.subscribe(TOPIC);
    other.nothing();
    other.ask(0);
    assert!(other.error().await.contains("no firmware"));
}

#[tokio::test]
async fn a_crash_forgets_marks_and_a_device_that_goes_on_is_done_all_the_same() {
    let site = Site::with(|settings| settings.flush_interval = Duration::from_secs(3600)).await;
    let firmware = image(1000, 17);
    site.drop_file("fw.bin", &firmware).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    let mut got = device.download(0, 6).await;
    let site = site.crash().await;
    assert_eq!(site.service.device("dev-1").unwrap().progress.chunks_sent, 0, "not yet written");
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    got.extend(device.download(6, 10).await);
    assert_eq!(got, firmware);
    site.until_state("dev-1", "downloaded").await;
}

#[tokio::test]
async fn who_has_not_asked_for_the_old_one_gets_the_new_one() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    let best = image(300, 19);
    site.drop_file("fw-1.0.0.bin", &image(300, 18)).await;
    assert_eq!(device.manifest().await["version"], "1.0.0");
    site.drop_file("fw-2.0.0.bin", &best).await;
    device.nothing();
    device.ask(0);
    assert_eq!(device.manifest().await["version"], "2.0.0");
    assert_eq!(device.download(0, 3).await, best);
    device.nothing();
}

#[tokio::test]
async fn rule_17_a_block_that_is_asked_for_often_is_answered_once_a_second() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 20)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    for _ in 0..5 {
        device.ask(3);
        device.block().await;
    }
    let before = std::time::Instant::now();
    for _ in 0..10 {
        device.ask(3);
    }
    device.nothing();
    assert_eq!(device.block().await.0, 3);
    assert!(before.elapsed() > Duration::from_millis(900));
    device.nothing();
}

#[tokio::test]
async fn rule_14_the_pin_is_in_the_database_before_the_manifest_leaves() {
    let site = Site::with(|settings| settings.flush_interval = Duration::from_secs(3600)).await;
    site.drop_file("fw.bin", &image(1000, 21)).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    let manifest = device.manifest().await;
    let site = site.crash().await;
    let offered = site.service.device("dev-1").unwrap().firmware.unwrap();
    assert_eq!(manifest["sha256"], offered.digest);
    assert_eq!(manifest["chunk_size"], offered.chunk_size);
}

#[tokio::test]
async fn bytes_that_cannot_be_read_are_an_error_and_never_other_bytes() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &image(1000, 22)).await;
    std::fs::remove_dir_all(site.dir.path().join("data/objects")).unwrap();
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    device.ask(4);
    assert!(device.error().await.contains("chunk 4 cannot be read"));
}
