//! A file that is replaced again and again while many devices download it, on several threads.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::Value;

use crate::harness::{Session, Site, TOPIC};

const DEVICES: u32 = 20;
const REPLACEMENTS: u32 = 100;
const LENGTH: usize = 1500;

/// Every image that was dropped, by its SHA-256.
type Images = Arc<Mutex<HashMap<String, Vec<u8>>>>;

fn image(number: u32) -> Vec<u8> {
    (0..LENGTH as u32)
        .flat_map(|at| (at.wrapping_mul(2_654_435_761) ^ number).to_le_bytes())
        .take(LENGTH)
        .collect()
}

/// Downloads with this many requests in flight until it has the last image; each block is
/// compared with the image of the manifest before it.
async fn download(mut device: Session, in_flight: u32, images: Images, last: String) {
    let (mut image, mut got, mut asked) = (Vec::new(), Vec::new(), 0);
    let mut sha256 = String::new();
    loop {
        let message = device.next().await;
        let metadata = &message["metadata"];
        match message["variable"].as_str() {
            Some("firmware_manifest") => {
                sha256 = metadata["sha256"].as_str().unwrap().into();
                image = images.lock()[&sha256].clone();
                got = vec![false; metadata["total_chunks"].as_u64().unwrap() as usize];
                asked = 0;
                while asked < in_flight {
                    device.ask(asked);
                    asked += 1;
                }
                continue;
            }
            Some("firmware_block") => {
                let index = message["value"].as_u64().unwrap() as usize;
                let text = metadata["data"].as_str().unwrap();
                let data = base64_simd::STANDARD.decode_to_vec(text).unwrap();
                let expected = &image[index * 100..][..data.len()];
                assert_eq!(data, expected, "block {index} is of another image than the manifest's");
                got[index] = true;
            }
            _ => panic!("{message}"),
        }
        if (asked as usize) < got.len() {
            device.ask(asked);
            asked += 1;
        } else if sha256 == last && got.iter().all(|got| *got) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rule_15_no_device_ever_gets_bytes_of_two_images() {
    let site = Site::start().await;
    let images = Images::default();
    for number in 0..=REPLACEMENTS {
        let bytes = image(number);
        images.lock().insert(store::Digest::of(&bytes).to_string(), bytes);
    }
    let last = store::Digest::of(&image(REPLACEMENTS)).to_string();
    site.drop_file("fw.bin", &image(0)).await;
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let mut device = site.connect(&format!("dev-{number}")).await;
        device.subscribe(TOPIC);
        let in_flight = 1 + number % 4;
        devices.push(tokio::spawn(download(device, in_flight, Arc::clone(&images), last.clone())));
    }
    for number in 1..=REPLACEMENTS {
        site.drop_file("fw.bin", &image(number)).await;
    }
    for device in devices {
        device.await.unwrap();
    }
    for number in 0..DEVICES {
        let view = site.until_state(&format!("dev-{number}"), "downloaded").await;
        let offered = serde_json::to_value(view.firmware).unwrap();
        assert_eq!(offered["digest"], Value::from(last.as_str()));
    }
}
