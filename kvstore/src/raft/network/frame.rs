//! Length-prefixed, checksummed frames. A length over the limit or a wrong checksum ends the connection.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::stream::write_flushed;

/// Larger than the largest message: a full batch of entries, or a chunk of a snapshot.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
const HEADER: usize = 8;
const READ_BYTES: usize = 64 << 10;

pub fn append_frame(out: &mut BytesMut, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    assert!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is over the limit"
    );
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    out.reserve(HEADER + length);
    out.extend_from_slice(&u32::try_from(length).expect("checked above").to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The same of what `put` puts behind what is there, so that it need not be copied; its header is filled in afterwards.
pub fn append_frame_of(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_bytes(0, HEADER);
    put(out);
    let (header, payload) = out[at..].split_at_mut(HEADER);
    let length = payload.len();
    assert!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is over the limit"
    );
    header[..4].copy_from_slice(&u32::try_from(length).expect("checked above").to_le_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    let mut out = BytesMut::new();
    append_frame(&mut out, &[payload]);
    write_flushed(to, &out).await
}

/// Reads frames, several per system call when they come close together.
pub struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(from: R) -> Self {
        Self {
            from,
            buffer: BytesMut::with_capacity(READ_BYTES),
            bytes_max: FRAME_BYTES_MAX,
        }
    }

    /// A reader for a connection whose other end has proved nothing yet.
    pub fn limited(from: R, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ..Self::new(from)
        }
    }

    pub fn unlimit(&mut self) {
        self.bytes_max = FRAME_BYTES_MAX;
    }

    /// The next frame; `None` when the other end closed between frames. Cancel-safe: what was read
    /// stays in the buffer.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_BYTES);
            let read = match self.from.read_buf(&mut self.buffer).await {
                // A process that was killed says no goodbye in TLS; without TLS nobody ever does.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if read == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some(header) = self.buffer.get(..HEADER) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let crc = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
        if length > self.bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {length} bytes is over the limit"),
            ));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let frame = self.buffer.split_to(length).freeze();
        if crc32c::crc32c(&frame) != crc {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame was damaged on its way",
            ));
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_same_bytes_whoever_puts_them_there() {
        let (mut copied, mut put) = (BytesMut::from("before"), BytesMut::from("before"));
        for payload in [b"hello".to_vec(), Vec::new(), vec![7; 70_000]] {
            append_frame(&mut copied, &[&payload]);
            append_frame_of(&mut put, |out| out.extend_from_slice(&payload));
        }
        assert_eq!(put, copied);
    }

    #[tokio::test]
    async fn damage_and_excess_end_the_connection() {
        let mut good = BytesMut::new();
        append_frame(&mut good, &[b"hel", b"lo"]);
        let mut reader = FrameReader::new(good.as_ref());
        assert_eq!(
            reader.next().await.expect("whole").as_deref(),
            Some(b"hello".as_slice())
        );
        assert!(reader.next().await.expect("closed between frames").is_none());
        let mut damaged = good.clone();
        damaged[10] ^= 1;
        assert!(FrameReader::new(damaged.as_ref()).next().await.is_err());
        assert!(
            FrameReader::new(&good[..9]).next().await.is_err(),
            "cut inside a frame"
        );
        assert!(FrameReader::limited(good.as_ref(), 4).next().await.is_err());
    }
}
