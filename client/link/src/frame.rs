//! Frames on a stream: a length (u32, little endian), then so many bytes, which are opaque here.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a frame's head.
const HEAD: usize = 4;
/// How much is read at once, and how much room a lying length can claim before bytes arrive.
const CHUNK: usize = 64 << 10;
/// Bodies from this size on are queued as they are; smaller ones are copied together into one write.
const COPY_MAX: usize = 16 << 10;

/// Why a stream cannot be cut into frames any further. All but `Io` are the peer's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than the reader allows; nothing was allocated for it.
    #[error("a frame of {length} bytes, where {limit} are allowed")]
    TooLong {
        /// The length that the head tells.
        length: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A frame without a body, which no message encodes to.
    #[error("a frame of no bytes")]
    Empty,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame: {missing} bytes are missing")]
    Truncated {
        /// Bytes of the head or the body that did not come.
        missing: usize,
    },
    /// The stream failed: most often the connection did.
    #[error("stream: {0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Does this say something of the peer's bytes, rather than of the connection?
    pub const fn is_malformed(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// Cuts a stream into frames. Reads ahead, so nobody else may read from the stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader at the start of a frame.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame's body, at most `length_max` bytes; `None` when the stream ended between two frames.
    ///
    /// Bodies share the buffer that they were read into: copy those that are kept for long.
    ///
    /// Cancel-safe: dropping the future loses nothing. After an error the same error comes again.
    ///
    /// # Errors
    /// [`FrameError`]; see there.
    pub async fn next(&mut self, length_max: usize) -> Result<Option<Bytes>, FrameError> {
        loop {
            let missing = match self.cut(length_max)? {
                Cut::Frame(body) => return Ok(Some(body)),
                Cut::Missing(missing) => missing,
            };
            // Room grows with what has arrived, not with what the head promises: a liar gets one chunk.
            if self.buffer.capacity() - self.buffer.len() < CHUNK / 4 {
                self.buffer.reserve(missing.clamp(CHUNK / 4, CHUNK.max(self.buffer.len())));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated { missing }) };
            }
        }
    }

    /// A frame that is already here, without waiting: for batching behind one [`FrameReader::next`].
    ///
    /// # Errors
    /// As [`FrameReader::next`], except that the stream is not read.
    pub fn ready(&mut self, length_max: usize) -> Result<Option<Bytes>, FrameError> {
        match self.cut(length_max)? {
            Cut::Frame(body) => Ok(Some(body)),
            Cut::Missing(_) => Ok(None),
        }
    }

    /// The stream and what was read ahead of it.
    pub fn into_parts(self) -> (R, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    fn cut(&mut self, limit: usize) -> Result<Cut, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else {
            return Ok(Cut::Missing(HEAD - self.buffer.len()));
        };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > limit {
            return Err(FrameError::TooLong { length, limit });
        }
        let here = self.buffer.len() - HEAD;
        if here < length {
            return Ok(Cut::Missing(length - here));
        }
        self.buffer.advance(HEAD);
        Ok(Cut::Frame(self.buffer.split_to(length).freeze()))
    }
}

enum Cut {
    Frame(Bytes),
    Missing(usize),
}

/// Puts frames on a stream: many pushes, one flush, few writes.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    /// What is to be written before `tail`, in order.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    pending: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer at the start of a frame.
    pub fn new(stream: W) -> Self {
        Self { stream, queue: VecDeque::new(), tail: BytesMut::new(), pending: 0 }
    }

    /// Queues one frame, copying the body. Nothing is sent before [`FrameWriter::flush`].
    ///
    /// # Errors
    /// [`FrameError::Empty`] and [`FrameError::TooLong`] (beyond 4 GiB); nothing is queued then.
    pub fn push(&mut self, body: &[u8]) -> Result<(), FrameError> {
        self.head(body.len())?;
        self.tail.put_slice(body);
        Ok(())
    }

    /// Queues one frame; a long body is not copied.
    ///
    /// # Errors
    /// As [`FrameWriter::push`].
    pub fn push_bytes(&mut self, body: Bytes) -> Result<(), FrameError> {
        if body.len() < COPY_MAX {
            return self.push(&body);
        }
        self.head(body.len())?;
        self.queue.push_back(self.tail.split().freeze());
        self.queue.push_back(body);
        Ok(())
    }

    /// Bytes queued and not yet taken by the stream: what a caller bounds.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Hands everything queued to the stream.
    ///
    /// Cancel-safe: what was not taken stays queued, in order, and the next flush goes on from there.
    ///
    /// # Errors
    /// [`FrameError::Io`] when the stream or its connection ended.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        while let Some(front) = self.queue.front_mut() {
            let taken = self.stream.write(front).await?;
            if taken == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            front.advance(taken);
            self.pending -= taken;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        Ok(self.stream.flush().await?)
    }

    /// The stream itself, to finish or to prioritise it.
    pub const fn stream_mut(&mut self) -> &mut W {
        &mut self.stream
    }

    /// The stream; what was not flushed is dropped.
    pub fn into_inner(self) -> W {
        self.stream
    }

    fn head(&mut self, length: usize) -> Result<(), FrameError> {
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let limit = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        let head = u32::try_from(length).map_err(|_| FrameError::TooLong { length, limit })?;
        self.tail.put_u32_le(head);
        self.pending += HEAD + length;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
