//! Any bytes as what a WebSocket client sends.

use super::{
    frame::Decoder,
    upgrade::{Verdict, judge},
};

/// Frames: the first byte says how they are cut, and in whatever pieces they come the payload and
/// the end are the same.
pub fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut payload, mut pings) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut piece = piece.to_vec();
            let len = decoder.decode(&mut piece);
            payload.extend_from_slice(&piece[..len]);
            pings.extend(decoder.take_ping());
        }
        (payload, pings.pop(), format!("{:?}", decoder.end()))
    };
    let whole = read(&mut std::iter::once(bytes));
    assert_eq!(read(&mut bytes.chunks(1 + usize::from(*cut))), whole);
    assert!(whole.0.len() <= bytes.len());
}

/// The request before them: more bytes never make another verdict of what is decided.
pub fn request(data: &[u8]) {
    let verdict = judge(data, "/mqtt");
    if let Verdict::Accept { len, .. } = &verdict {
        assert!(*len <= data.len());
        assert_eq!(judge(&data[..*len], "/mqtt"), verdict);
        assert_eq!(judge(&data[..*len - 1], "/mqtt"), Verdict::Incomplete);
    }
    if verdict != Verdict::Incomplete {
        let longer = [data, b"\r\n\r\n"].concat();
        assert_eq!(judge(&longer, "/mqtt"), verdict);
    }
}
