//! Moving a snapshot to a member that is too far behind: a head with the manifest, then the files in
//! checksummed chunks. The receiver verifies every file before anything is installed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::frame::{append_frame, write_frame};
use super::handshake::Connection;
use super::message::{self, SnapshotHead};
use super::stream::write_flushed;
use crate::machine::snapshot::{MANIFEST, Manifest, read_manifest};
use crate::raft::types::{SnapshotMeta, Vote};
use crate::storage::damage::Damage;
use crate::storage::files;

const CHUNK_BYTES: usize = 1 << 20;
/// A sender that says nothing for so long does not keep others from sending theirs.
const SILENT_MAX: Duration = Duration::from_secs(20);

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// Sends the snapshot in `folder`; answers the receiver's vote. Files that are no longer what they were end
/// this node: they are links to tables that it reads itself.
pub(crate) async fn send(
    mut connection: Connection,
    vote: Vote,
    meta: &SnapshotMeta,
    folder: &Path,
    damage: &Damage,
) -> io::Result<Vote> {
    let manifest = read_manifest(folder)?;
    // Opened first: if a newer snapshot replaces this one, its files stay readable.
    let opened = manifest
        .files
        .iter()
        .map(|file| File::open(folder.join(&file.name)))
        .collect::<io::Result<Vec<File>>>()?;
    let head = SnapshotHead {
        vote,
        meta: serde_json::to_vec(meta)?,
        manifest: serde_json::to_vec(&manifest)?,
    };
    write_frame(&mut connection.writer, &message::encode(&head)).await?;
    for (mut file, described) in opened.into_iter().zip(&manifest.files) {
        let (mut bytes, mut crc) = (0, 0);
        loop {
            let (read, back) = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = read_full(&mut file, &mut chunk)?;
                chunk.truncate(read);
                Ok::<_, io::Error>((chunk, file))
            })
            .await
            .map_err(io::Error::other)??;
            file = back;
            if read.is_empty() {
                break;
            }
            bytes += read.len() as u64;
            crc = crc32c::crc32c_append(crc, &read);
            let mut out = bytes::BytesMut::new();
            append_frame(&mut out, &[&read])?;
            write_flushed(&mut connection.writer, &out).await?;
        }
        if (bytes, crc) != (described.bytes, described.crc32c) {
            let error = malformed(&format!("{} does not match its checksum", described.name));
            damage.report_corruption("the files of this node's snapshot", &error);
            return Err(error);
        }
    }
    let answer = connection
        .reader
        .next()
        .await?
        .ok_or_else(|| malformed("the receiver closed before it had installed the snapshot"))?;
    message::decode(&answer).map_err(io::Error::other)
}

fn read_full(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        let read = file.read(&mut chunk[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

async fn next_piece(connection: &mut Connection) -> io::Result<Option<Bytes>> {
    match tokio::time::timeout(SILENT_MAX, connection.reader.next()).await {
        Ok(piece) => piece,
        Err(_late) => Err(io::Error::new(io::ErrorKind::TimedOut, "the sender fell silent")),
    }
}

/// Receives into `folder`, which is emptied first. What comes back is whole, verified and synced.
pub async fn receive(
    connection: &mut Connection,
    folder: PathBuf,
) -> io::Result<(Vote, SnapshotMeta, PathBuf)> {
    let head = next_piece(connection).await?;
    let head = head.ok_or_else(|| malformed("a snapshot without a head"))?;
    let head: SnapshotHead = message::decode(&head).map_err(io::Error::other)?;
    let (meta, manifest): (SnapshotMeta, Manifest) = (head.meta()?, serde_json::from_slice(&head.manifest)?);
    files::remove_folder(&folder)?;
    std::fs::create_dir_all(&folder)?;
    for file in &manifest.files {
        if file.name.contains('/') || file.name.starts_with('.') {
            return Err(malformed("a snapshot names a file outside its folder"));
        }
        let mut target = File::create(folder.join(&file.name))?;
        let (mut bytes, mut crc) = (0, 0);
        while bytes < file.bytes {
            let chunk = next_piece(connection).await?;
            let chunk = chunk.ok_or_else(|| malformed("a snapshot was cut short"))?;
            bytes += chunk.len() as u64;
            crc = crc32c::crc32c_append(crc, &chunk);
            target = tokio::task::spawn_blocking(move || target.write_all(&chunk).map(|()| target))
                .await
                .map_err(io::Error::other)??;
        }
        if bytes != file.bytes || crc != file.crc32c {
            return Err(malformed("a file of a snapshot does not match its checksum"));
        }
        tokio::task::spawn_blocking(move || target.sync_all())
            .await
            .map_err(io::Error::other)??;
    }
    files::write_atomically(&folder.join(MANIFEST), &head.manifest)?;
    Ok((head.vote, meta, folder))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use bytes::BytesMut;

    use super::super::frame::FrameReader;
    use super::super::handshake::Purpose;
    use super::super::stream::Incoming;
    use super::*;
    use crate::machine::snapshot::ManifestFile;
    use crate::raft::entry::log_id;
    use crate::raft::types::StoredMembership;

    fn manifest(table: &[u8]) -> Manifest {
        Manifest {
            format: 1,
            meta: SnapshotMeta {
                last_log_id: Some(log_id(2, 1, 10)),
                last_membership: StoredMembership::default(),
            },
            generation: 3,
            files: vec![ManifestFile {
                name: "000007.sst".to_owned(),
                bytes: table.len() as u64,
                crc32c: crc32c::crc32c(table),
            }],
        }
    }

    /// From somebody who sends this manifest, and this as the file that it names.
    fn connection(manifest: &Manifest, table: &[u8]) -> Connection {
        let head = SnapshotHead {
            vote: Vote::new(2, 1),
            meta: serde_json::to_vec(&manifest.meta).unwrap(),
            manifest: serde_json::to_vec(manifest).unwrap(),
        };
        let mut sent = BytesMut::new();
        append_frame(&mut sent, &[&message::encode(&head)]).expect("it fits");
        append_frame(&mut sent, &[table]).expect("it fits");
        let incoming: Incoming = Box::new(Cursor::new(sent.to_vec()));
        Connection {
            reader: FrameReader::new(incoming),
            writer: Box::new(tokio::io::sink()),
            peer: 1,
            peer_disk: String::new(),
            peer_cluster: None,
            purpose: Purpose::Snapshot,
        }
    }

    /// Nobody looks at the files again before they are installed.
    #[tokio::test]
    async fn a_snapshot_has_a_manifest_only_if_every_file_is_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let incoming = folder.path().join("incoming.tmp");
        let manifest = manifest(b"whole");
        for other in ["bent!", "longer than that"] {
            let mut connection = connection(&manifest, other.as_bytes());
            let error = receive(&mut connection, incoming.clone()).await.unwrap_err();
            assert!(error.to_string().contains("checksum"), "{error}");
            assert!(!incoming.join(MANIFEST).exists());
        }
        let mut cut = connection(&manifest, b"who");
        let error = receive(&mut cut, incoming.clone()).await.unwrap_err();
        assert!(error.to_string().contains("cut short"), "{error}");
        assert!(!incoming.join(MANIFEST).exists());

        let mut connection = connection(&manifest, b"whole");
        let (_vote, meta, received) = receive(&mut connection, incoming).await.unwrap();
        assert!(meta == manifest.meta);
        assert_eq!(read_manifest(&received).unwrap(), manifest);
        assert_eq!(std::fs::read(received.join("000007.sst")).unwrap(), b"whole");
    }
}
