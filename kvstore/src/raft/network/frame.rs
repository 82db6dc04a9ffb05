//! Length-prefixed, checksummed frames. A length over the limit or a wrong checksum ends the connection.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::stream::write_flushed;

/// Larger than the largest message: a full batch of entries, or a chunk of a snapshot.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
const HEADER: usize = 8;
const READ_BYTES: usize = 64 << 10;

fn over_the_limit(bytes: usize) -> io::Error {
    let what = format!("a frame of {bytes} bytes is over the limit");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn length_of(bytes: usize) -> io::Result<[u8; 4]> {
    if bytes > FRAME_BYTES_MAX {
        return Err(over_the_limit(bytes));
    }
    let length = u32::try_from(bytes).expect("the limit is far below 4 GiB");
    Ok(length.to_le_bytes())
}

/// Puts a frame behind what is there, or nothing if it is over the limit.
pub fn append_frame(out: &mut BytesMut, parts: &[&[u8]]) -> io::Result<()> {
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    let length = length_of(bytes)?;
    let crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    out.reserve(HEADER + bytes);
    out.extend_from_slice(&length);
    out.extend_from_slice(&crc.to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// The same of what `put` puts behind what is there, so that it need not be copied; its header is filled in afterwards.
pub fn append_frame_of(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) -> io::Result<()> {
    let at = out.len();
    out.put_bytes(0, HEADER);
    put(out);
    let length = length_of(out.len() - at - HEADER).inspect_err(|_over| out.truncate(at))?;
    let (header, payload) = out[at..].split_at_mut(HEADER);
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    Ok(())
}

pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), payload: &[u8]) -> io::Result<()> {
    let mut out = BytesMut::new();
    append_frame(&mut out, &[payload])?;
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
            return Err(over_the_limit(length));
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
            append_frame(&mut copied, &[&payload]).expect("it fits");
            append_frame_of(&mut put, |out| out.extend_from_slice(&payload)).expect("it fits");
        }
        assert_eq!(put, copied);
    }

    #[test]
    fn what_is_over_the_limit_leaves_what_was_there_before_it() {
        let mut out = BytesMut::new();
        append_frame(&mut out, &[b"before"]).expect("it fits");
        let (before, payload) = (out.clone(), vec![7_u8; FRAME_BYTES_MAX + 1]);
        assert!(append_frame(&mut out, &[&payload]).is_err() && out == before);
        assert!(append_frame_of(&mut out, |out| out.extend_from_slice(&payload)).is_err() && out == before);
        append_frame(&mut out, &[&payload[1..]]).expect("the largest fits");
    }

    #[tokio::test]
    async fn damage_and_excess_end_the_connection() {
        let mut good = BytesMut::new();
        append_frame(&mut good, &[b"hel", b"lo"]).expect("it fits");
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
