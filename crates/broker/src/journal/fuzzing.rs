//! Any bytes as a file of the log.

use bytes::BytesMut;

use super::{
    Image, Record,
    file::{self, HEADER},
    record::Retained,
};

fn encoded(record: &Record) -> BytesMut {
    let mut out = BytesMut::new();
    record.encode(&mut out);
    out
}

/// Records, each behind a byte with its length: what is read is written and read again as it was,
/// a state can be made of it, and a file of it is good up to where it is cut.
pub fn log(data: &[u8]) {
    let mut file = file::header();
    let mut image = Image::default();
    let mut rest = data;
    while let Some((len, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(tail.len().min((*len).into()));
        rest = tail;
        let Ok(record) = Record::decode(body) else { continue };
        let written = encoded(&record);
        let again = Record::decode(&written);
        // A message that expires is written with the time that it has left.
        let ages = match &record {
            Record::Publish(published) => published.message.expires.is_some(),
            Record::Serve { what: Retained::Message { message, .. }, .. } => {
                message.expires.is_some()
            }
            _ => false,
        };
        assert!(ages && again.is_ok() || again.is_ok_and(|again| encoded(&again) == written));
        file::put(&mut file, &record);
        image.apply(record);
    }
    let mut count = 0;
    let (good, fault) = file::read(&file, |_| count += 1);
    assert_eq!((good, fault), (file.len() as u64, None));
    // The file itself, as if it were the bytes, and cut off.
    file::read(data, |_| {});
    let cut = HEADER.max(file.len() - file.len().min(data.len() % 64));
    let (good, _) = file::read(&file[..cut], |_| count -= 1);
    assert!(good <= cut as u64 && count >= 0);
}
