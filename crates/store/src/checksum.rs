//! Checksums other than SHA-256, for devices that know no better. A sidecar names one.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{
    Sha256, Sha384, Sha512,
    digest::{Digest, Output},
};

/// How a checksum is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are their own names")]
pub enum Algorithm {
    #[serde(rename = "MD5")]
    Md5,
    #[serde(rename = "SHA256")]
    Sha256,
    #[serde(rename = "SHA384")]
    Sha384,
    #[serde(rename = "SHA512")]
    Sha512,
    #[serde(rename = "CRC32")]
    Crc32,
    #[serde(rename = "MURMUR3_32")]
    Murmur3x32,
    /// The variant for 64-bit machines.
    #[serde(rename = "MURMUR3_128")]
    Murmur3x128,
}

impl Algorithm {
    /// Its name, as ThingsBoard has it and sidecars do.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha384 => "SHA384",
            Algorithm::Sha512 => "SHA512",
            Algorithm::Crc32 => "CRC32",
            Algorithm::Murmur3x32 => "MURMUR3_32",
            Algorithm::Murmur3x128 => "MURMUR3_128",
        }
    }

    /// The checksum of everything that can be read.
    pub(crate) fn of(self, bytes: &mut impl Read) -> io::Result<Checksum> {
        let value = match self {
            Algorithm::Md5 => hashed::<md5::Md5>(bytes)?,
            Algorithm::Sha256 => hashed::<Sha256>(bytes)?,
            Algorithm::Sha384 => hashed::<Sha384>(bytes)?,
            Algorithm::Sha512 => hashed::<Sha512>(bytes)?,
            Algorithm::Crc32 => {
                let mut crc = crc32fast::Hasher::new();
                each(bytes, |bytes| crc.update(bytes))?;
                hex::encode(crc.finalize().to_le_bytes())
            }
            Algorithm::Murmur3x32 => {
                hex::encode(murmur3::murmur3_32(&mut io::BufReader::new(bytes), 0)?.to_le_bytes())
            }
            Algorithm::Murmur3x128 => {
                let bytes = &mut io::BufReader::new(bytes);
                hex::encode(murmur3::murmur3_x64_128(bytes, 0)?.to_le_bytes())
            }
        };
        Ok(Checksum { algorithm: self, value })
    }
}

/// A checksum of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was made.
    pub algorithm: Algorithm,
    /// In lower-case hex, of those that are numbers the lowest byte first, as ThingsBoard has it.
    pub value: String,
}

fn hashed<D: Digest>(bytes: &mut impl Read) -> io::Result<String> {
    let mut hasher = D::new();
    each(bytes, |bytes| hasher.update(bytes))?;
    let output: Output<D> = hasher.finalize();
    Ok(hex::encode(output))
}

fn each(bytes: &mut impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values by others: `md5sum` and its kin, Python's zlib and mmh3.
    #[test]
    fn all_are_as_others_have_them() {
        for (algorithm, name, expected) in [
            (Algorithm::Md5, "MD5", "25f9e794323b453885f5181f1b624d0b"),
            (
                Algorithm::Sha256,
                "SHA256",
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ),
            (
                Algorithm::Sha384,
                "SHA384",
                "eb455d56d2c1a69de64e832011f3393d45f3fa31d6842f21af92d2fe469c499da5e3179847334a18479c8d1dedea1be3",
            ),
            (
                Algorithm::Sha512,
                "SHA512",
                "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274ad27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
            ),
            (Algorithm::Crc32, "CRC32", "2639f4cb"),
            (Algorithm::Murmur3x32, "MURMUR3_32", "82f3feb4"),
            (Algorithm::Murmur3x128, "MURMUR3_128", "a4cc66db5e64843c05a11e3ac7faf899"),
        ] {
            let checksum = algorithm.of(&mut &b"123456789"[..]).unwrap();
            assert_eq!((algorithm.name(), &*checksum.value), (name, expected));
            let text = serde_json::to_string(&checksum).unwrap();
            assert_eq!(serde_json::from_str::<Checksum>(&text).unwrap(), checksum);
            assert!(text.contains(name), "{text}");
        }
    }
}
