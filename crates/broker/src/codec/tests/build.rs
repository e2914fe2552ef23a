//! Packets of clients, written by hand: without the codec's own writer, and without its scruples.

use hook::Protocol;

/// A length-prefixed field.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A packet: first byte, remaining length, body.
pub fn packet(first: u8, body: &[&[u8]]) -> Vec<u8> {
    [vec![first], block(&body.concat())].concat()
}

/// Bytes behind their length, as a variable byte integer.
pub fn block(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut len = bytes.len();
    while len > 127 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    [out, bytes.to_vec()].concat()
}

/// A property block where the version has one.
pub fn properties(protocol: Protocol, bytes: &[u8]) -> Vec<u8> {
    match protocol {
        Protocol::V311 => Vec::new(),
        Protocol::V5 => block(bytes),
    }
}

/// A user property.
pub fn user(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x26], field(name), field(value)].concat()
}

/// The protocol level.
pub fn level(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::V311 => 4,
        Protocol::V5 => 5,
    }
}

/// A CONNECT: flags, properties, and the payload behind them. Keep alive is 60.
pub fn connect(protocol: Protocol, flags: u8, block: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let head = [field("MQTT"), vec![level(protocol), flags, 0, 60]].concat();
    packet(0x10, &[&head, &properties(protocol, block), &payload.concat()])
}

/// One of each packet that a client may send, and its rarer forms.
pub fn corpus(protocol: Protocol) -> Vec<Vec<u8>> {
    let v5 = protocol == Protocol::V5;
    let p = |bytes: &[u8]| properties(protocol, bytes);
    let user = user("k", "v");
    let text = [&[0x1f][..], &field("why"), &user].concat();
    let session =
        [&[0x11, 0, 0, 0, 9, 0x21, 0, 5, 0x27, 0, 1, 0, 0, 0x22, 0, 7][..], &user].concat();
    let will = p(&[&[0x18, 0, 0, 0, 1][..], &user].concat());
    let message = [
        &[0x01, 1, 0x02, 0, 0, 0, 60, 0x03][..],
        &field("type"),
        &[0x08],
        &field("r/t"),
        &[0x09],
        &field("id"),
        &[0x23, 0, 3],
        &user,
    ]
    .concat();
    let mut all = vec![
        connect(protocol, 2, &[], &[&field("c")]),
        connect(protocol, 0, &[], &[&field("")]),
        connect(
            protocol,
            0xf6,
            &session,
            &[&field("client"), &will, &field("w/t"), &field("bye"), &field("user"), &field("pw")],
        ),
        packet(0x30, &[&field("a/b"), &p(&message), b"payload"]),
        packet(0x3b, &[&field("a/b"), &[0, 7], &p(&message), b"payload"]),
        packet(0x34, &[&field("\u{e9}"), &[0, 7], &p(&[]), b""]),
        packet(0x31, &[&field("a"), &p(&[])]),
        packet(0x40, &[&[0, 7]]),
        packet(0x50, &[&[0, 7]]),
        packet(0x62, &[&[0, 7]]),
        packet(0x70, &[&[0, 7]]),
        packet(
            0x82,
            &[
                &[0, 7],
                &p(&[&[0x0b, 0x81, 1][..], &user].concat()),
                &field("a/#"),
                &[1],
                &field("b"),
                &[2],
            ],
        ),
        packet(0xa2, &[&[0, 7], &p(&user), &field("a/#"), &field("b")]),
        packet(0xc0, &[]),
        packet(0xe0, &[]),
    ];
    if v5 {
        all.extend([
            connect(protocol, 0x42, &[], &[&field("c"), &field("password without user")]),
            connect(
                protocol,
                2,
                &[&[0x17, 0, 0x19, 1, 0x15][..], &field("SCRAM"), &[0x16], &field("data")].concat(),
                &[&field("c")],
            ),
            packet(0x30, &[&field(""), &block(&[0x23, 0, 3]), b"x"]),
            packet(0x30, &[&field("a"), &block(&[0x02, 0, 0, 0, 0]), b"x"]),
            packet(0x40, &[&[0, 7, 0x10]]),
            packet(0x50, &[&[0, 7, 0x97], &block(&text)]),
            packet(0x62, &[&[0, 7, 0x92], &block(&text)]),
            packet(0x70, &[&[0, 7, 0]]),
            packet(0x82, &[&[0, 7], &block(&[]), &field("$share/g/b/+"), &[0x28]]),
            packet(0x82, &[&[0, 7], &block(&[]), &field("a"), &[0x1e]]),
            packet(0xe0, &[&[4]]),
            packet(0xe0, &[&[4], &block(&[&[0x11, 0, 0, 0, 9][..], &text].concat())]),
            packet(
                0xf0,
                &[
                    &[0x18],
                    &block(
                        &[&[0x15][..], &field("SCRAM"), &[0x16], &field("data"), &text].concat(),
                    ),
                ],
            ),
        ]);
    }
    all
}
