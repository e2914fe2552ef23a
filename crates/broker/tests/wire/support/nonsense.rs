//! What clients may send that mean harm, or have lost their way: the same in every run.

use super::packets::*;

/// SplitMix64: the same nonsense in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One to three small damages.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1));
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.insert(at, self.next() as u8),
            }
        }
    }
}

/// One packet of each kind, on topics that the innocent do not use.
fn packets(version: u8) -> Vec<Vec<u8>> {
    let publish = Publish::new("evil/é", "payload");
    let properties = [user("a", "b"), vec![0x23, 0, 1], seconds(0x02, 9)].concat();
    vec![
        publish.clone().bytes(version),
        publish.clone().qos(1, 1).retained().bytes(version),
        publish.with(&properties).qos(2, 2).bytes(version),
        puback(1),
        pubrec(2),
        pubrel(2),
        pubcomp(2),
        subscribe(version, 3, &[], &[("evil/#", 2), ("$share/g/evil/+", 1), ("$SYS/#", 0)]),
        unsubscribe(version, 4, &["evil/#", "a"]),
        PINGREQ.to_vec(),
        with_code(puback(9), 0x10),
        DISCONNECT.to_vec(),
        frame(0xf0, &[0x18, 0]),
    ]
}

/// A CONNECT and some packets, some of them damaged, or nothing of the kind. `n` chooses among fifty
/// client ids.
pub fn nonsense(random: &mut Random, n: u64) -> Vec<u8> {
    let version = BOTH[random.below(2)];
    let will = Will { qos: 1, ..Will::new("evil/will", "w") };
    let connect = Connect::lasting(version, &format!("evil-{}", n % 50)).will(will).bytes();
    let kinds = packets(version);
    match random.below(4) {
        0 => (0..random.below(200)).map(|_| random.next() as u8).collect(),
        1 => {
            let mut connect = connect;
            random.damage(&mut connect);
            connect
        }
        _ => {
            let mut bytes = connect;
            for _ in 0..=random.below(8) {
                let mut packet = kinds[random.below(kinds.len())].clone();
                if random.below(3) == 0 {
                    random.damage(&mut packet);
                }
                bytes.extend(packet);
            }
            bytes
        }
    }
}
