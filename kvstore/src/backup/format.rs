//! The file: a mark, a head with its checksum, the files of a checkpoint one behind the other, a SHA-256 over all of
//! that, and an end mark.
//! Invariant: a file that is cut short, or has one wrong bit anywhere, is refused.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Progress;
use crate::machine::snapshot::ManifestFile;
use crate::raft::types::LogId;

pub(super) const BEGIN: &[u8; 8] = b"MNGBACK1";
pub(super) const END: &[u8; 8] = b"MNGBEND1";
/// The checksum over all, and the mark.
pub(super) const END_BYTES: u64 = 32 + END.len() as u64;
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// A head names files; a longer one is none of ours.
const HEAD_BYTES_MAX: u32 = 16 << 20;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of the cluster that was backed up.
    pub cluster_id: String,
    pub revision: u64,
    pub keys: u64,
    /// What `GET /v1/hash` answers at this revision.
    pub hash: String,
    pub last_log: LogId,
    pub made_ms: u64,
    /// Of the program that made it.
    pub version: String,
    pub files: Vec<ManifestFile>,
}

impl Head {
    pub fn files_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The mark and the head as they stand at the beginning.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let head = serde_json::to_vec(self)?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut out = BEGIN.to_vec();
        out.extend(length.to_le_bytes());
        out.extend(&head);
        out.extend(crc32c::crc32c(&head).to_le_bytes());
        Ok(out)
    }
}

/// A backup that is being read, front to back.
pub struct Reader<R> {
    pub head: Head,
    from: R,
    read: Sha256,
    bytes: u64,
    done: u64,
}

impl Reader<BufReader<File>> {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let bytes = file.metadata().context("look at the file")?.len();
        Self::begin(BufReader::with_capacity(PIECE_BYTES, file), bytes)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the head. `bytes` is for telling progress alone.
    pub(super) fn begin(mut from: R, bytes: u64) -> anyhow::Result<Self> {
        let mut read = Sha256::new();
        let mark = take::<8>(&mut from, &mut read)?;
        ensure!(&mark == BEGIN, "this is no backup of a Menagerie store");
        let length = u32::from_le_bytes(take(&mut from, &mut read)?);
        ensure!(length <= HEAD_BYTES_MAX, "the head of the backup is damaged");
        let mut head = vec![0; length as usize];
        from.read_exact(&mut head).context("the backup is cut short")?;
        read.update(&head);
        let checksum = u32::from_le_bytes(take(&mut from, &mut read)?);
        ensure!(
            crc32c::crc32c(&head) == checksum,
            "the head of the backup is damaged"
        );
        let head: Head = serde_json::from_slice(&head).context("read the head of the backup")?;
        for file in &head.files {
            let plain = !file.name.is_empty() && !file.name.contains('/') && !file.name.starts_with('.');
            ensure!(plain, "the backup names a file outside of its folder");
        }
        let mut sizes = head.files.iter().map(|file| file.bytes);
        let sum = sizes.try_fold(0_u64, u64::checked_add);
        ensure!(sum.is_some(), "the backup tells of more bytes than there can be");
        Ok(Self {
            head,
            from,
            read,
            bytes,
            done: 0,
        })
    }

    /// Reads all of it, giving each file to what `open` makes for it.
    pub fn read<W: Write>(
        mut self,
        mut open: impl FnMut(&ManifestFile) -> io::Result<W>,
        progress: Progress<'_>,
    ) -> anyhow::Result<Head> {
        let mut piece = vec![0; PIECE_BYTES];
        for described in &self.head.files {
            let mut target = open(described).with_context(|| format!("make {}", described.name))?;
            let (mut left, mut crc) = (described.bytes, 0);
            while left > 0 {
                let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
                let piece = &mut piece[..wanted];
                self.from.read_exact(piece).context("the backup is cut short")?;
                self.read.update(&*piece);
                crc = crc32c::crc32c_append(crc, piece);
                target
                    .write_all(piece)
                    .with_context(|| format!("write {}", described.name))?;
                left -= wanted as u64;
                self.done += wanted as u64;
                progress(self.done, self.bytes);
            }
            ensure!(
                crc == described.crc32c,
                "{} in the backup is damaged",
                described.name
            );
        }
        let wanted: [u8; 32] = self.read.finalize().into();
        let mut rest = Vec::new();
        // One byte more tells that something stands behind the end; how much need not be known, or held.
        let mut last = self.from.take(END_BYTES + 1);
        last.read_to_end(&mut rest).context("read the end")?;
        let read = rest.len() as u64;
        ensure!(read >= END_BYTES, "the backup is cut short");
        ensure!(read == END_BYTES, "something stands behind the end of the backup");
        ensure!(
            rest[..32] == wanted && rest[32..] == *END,
            "the end of the backup is damaged"
        );
        progress(self.bytes, self.bytes);
        Ok(self.head)
    }
}

fn take<const N: usize>(from: &mut impl Read, read: &mut Sha256) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).context("the backup is cut short")?;
    read.update(bytes);
    Ok(bytes)
}

/// Where the pieces go of a file that is only looked at: nowhere, for as long as somebody wants to know of it.
struct Nowhere<'a> {
    is_wanted: &'a dyn Fn() -> bool,
}

impl Write for Nowhere<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.is_wanted)() {
            Ok(piece.len())
        } else {
            Err(io::Error::other("nobody waits for it any longer"))
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the whole file and compares every checksum. It may take minutes, and ends as a failure once it is not wanted.
pub fn verify(path: &Path, is_wanted: &dyn Fn() -> bool, progress: Progress<'_>) -> anyhow::Result<Head> {
    Reader::open(path)?.read(|_file| Ok(Nowhere { is_wanted }), progress)
}
