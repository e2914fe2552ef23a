//! A new file that is written from its beginning to its end.
//!
//! What is large goes past the system's cache of pages, where the file system can do that. For a
//! copy in there the system finds, clears and fills a page for every 4 KB, which costs more than
//! SHA-256 of the same bytes, and drops other files from memory for them.

use std::fs::File;
use std::io::{self, Write as _};

/// So much of each file goes through the cache: firmware of usual size is still in there when its
/// first device asks for it.
const CACHED: u64 = 16 << 20;
/// So many bytes go to the disk at once. A multiple of [`ALIGNMENT`].
const PIECE: usize = 1 << 20;
/// What places in memory and in the file are a multiple of. No disk in use has larger sectors.
const ALIGNMENT: usize = 4096;

/// The file, and what of it is not yet written.
#[derive(Debug)]
pub(crate) struct Sink {
    file: File,
    /// Bytes that went through the cache, while it is used.
    cached: u64,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// Through the cache, until there is so much.
    Cached { most: u64 },
    /// Past it.
    Direct(Piece),
}

/// Bytes that wait until they are a whole piece.
#[derive(Debug)]
struct Piece {
    memory: Vec<u8>,
    /// Where the piece begins in `memory`.
    start: usize,
    filled: usize,
}

impl Piece {
    fn new() -> Self {
        let memory = vec![0; PIECE + ALIGNMENT];
        // It may be impossible, says the standard library; then the disk says no.
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, filled: 0 }
    }

    /// Takes what there is room for, and returns the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.filled));
        let at = self.start + self.filled;
        self.memory[at..at + now.len()].copy_from_slice(now);
        self.filled += now.len();
        later
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }
}

impl Sink {
    /// Of a file that is empty.
    pub(crate) fn new(file: File) -> Self {
        Self { file, cached: 0, way: Way::Cached { most: CACHED } }
    }

    /// Writes the next bytes. Blocks.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.way {
                Way::Cached { most } => {
                    let room = usize::try_from(*most - self.cached).unwrap_or(usize::MAX);
                    let (now, later) = bytes.split_at(bytes.len().min(room));
                    self.file.write_all(now)?;
                    self.cached += now.len() as u64;
                    bytes = later;
                    if self.cached == *most {
                        self.way = match set_direct(&self.file, true) {
                            Ok(()) => Way::Direct(Piece::new()),
                            Err(_) => Way::Cached { most: u64::MAX },
                        };
                    }
                }
                Way::Direct(piece) => {
                    bytes = piece.fill(bytes);
                    if piece.filled == PIECE {
                        match write_direct(&mut self.file, piece.bytes())? {
                            Written::All => piece.filled = 0,
                            Written::NoMore => self.way = Way::Cached { most: u64::MAX },
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the rest, and returns the file. It is not synced. Blocks.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        if let Way::Direct(piece) = &self.way {
            // The end is no whole sector.
            set_direct(&self.file, false)?;
            self.file.write_all(piece.bytes())?;
        }
        Ok(self.file)
    }
}

/// What became of a piece.
enum Written {
    /// It went past the cache.
    All,
    /// Some of it went through the cache, as all that follows will.
    NoMore,
}

fn write_direct(file: &mut File, mut bytes: &[u8]) -> io::Result<Written> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The file system wants it otherwise, or cannot do it at all.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                set_direct(file, false)?;
                file.write_all(bytes)?;
                return Ok(Written::NoMore);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Written::All)
}

/// Whether what is written to the file from now on goes past the cache.
#[cfg(target_os = "linux")]
fn set_direct(file: &File, direct: bool) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(not(target_os = "linux"))]
fn set_direct(_: &File, direct: bool) -> io::Result<()> {
    if direct { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// No two neighbouring sectors are equal.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 509 % 251) as u8).collect()
    }

    fn written(dir: &Path, bytes: &[u8], part: usize, most: u64) -> Vec<u8> {
        let path = dir.join("file");
        let mut sink = Sink::new(File::create(&path).unwrap());
        sink.way = Way::Cached { most };
        for part in bytes.chunks(part) {
            sink.write(part).unwrap();
        }
        sink.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn parts_of_any_size_are_written_as_they_are() {
        let most = 2 * ALIGNMENT as u64;
        let memory = Path::new("/dev/shm");
        let disk = tempfile::tempdir().unwrap();
        let memory = tempfile::tempdir_in(if memory.is_dir() { memory } else { disk.path() });
        let memory = memory.unwrap();
        for dir in [disk.path(), memory.path()] {
            for length in [0, 1, most as usize, most as usize + 1, 3 * PIECE + 5, 2 * PIECE] {
                let bytes = bytes(length);
                for part in [777, ALIGNMENT, PIECE + 1, 4 * PIECE] {
                    assert!(written(dir, &bytes, part, most) == bytes, "{length} in {part}");
                }
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_system_that_wants_it_otherwise_gets_it_through_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        // No sector begins there, which every disk refuses.
        let bytes = bytes(4 * PIECE);
        assert!(written(dir.path(), &bytes, PIECE, 7) == bytes);
    }
}
