//! Frames against cut, lying and broken streams.
#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

const LIMIT: usize = 1 << 20;

/// A stream that comes in these pieces, with a `Pending` before each, and room for one byte in each second write.
#[derive(Default)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    awake: bool,
    written: Vec<u8>,
}

impl Pieces {
    /// Ready every second time it is asked.
    fn turn(&mut self, cx: &Context<'_>) -> bool {
        self.awake = !self.awake;
        if self.awake {
            cx.waker().wake_by_ref();
        }
        !self.awake
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.turn(cx) {
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(into.remaining()));
            into.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if !self.turn(cx) {
            return Poll::Pending;
        }
        let taken = from.len().div_ceil(2);
        self.written.extend_from_slice(&from[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn reader(pieces: &[&[u8]]) -> FrameReader<Pieces> {
    let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    FrameReader::new(Pieces { pieces, ..Pieces::default() })
}

/// The next frame, by a future that is dropped and made anew wherever it would wait.
async fn next_cancelled(reader: &mut FrameReader<Pieces>) -> Result<Option<Bytes>, FrameError> {
    loop {
        tokio::select! {
            biased;
            frame = reader.next(LIMIT) => return frame,
            () = std::future::ready(()) => {}
        }
    }
}

async fn flush_cancelled(writer: &mut FrameWriter<Pieces>) {
    loop {
        tokio::select! {
            biased;
            done = writer.flush() => return done.unwrap(),
            () = std::future::ready(()) => {}
        }
    }
}

proptest! {
    #[test]
    fn frames_survive_any_cut_and_any_cancellation(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..400), 0..12),
        long in proptest::option::of(COPY_MAX..3 * COPY_MAX),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut bodies: Vec<Bytes> = bodies.into_iter().map(Bytes::from).collect();
        if let Some(length) = long {
            bodies.insert(bodies.len() / 2, Bytes::from(vec![7; length]));
        }
        run(async {
            let mut writer = FrameWriter::new(Pieces::default());
            for (at, body) in bodies.iter().enumerate() {
                writer.push_bytes(body.clone()).unwrap();
                if at % 3 == 0 {
                    flush_cancelled(&mut writer).await;
                }
            }
            flush_cancelled(&mut writer).await;
            assert_eq!(writer.pending(), 0);
            let wire = Bytes::from(writer.into_inner().written);
            assert_eq!(wire.len(), bodies.iter().map(|body| HEAD + body.len()).sum::<usize>());

            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            // An empty piece reads as the end of the stream.
            let pieces = at.windows(2).map(|w| wire.slice(w[0]..w[1])).filter(|piece| !piece.is_empty()).collect();
            let mut reader = FrameReader::new(Pieces { pieces, ..Pieces::default() });
            for body in &bodies {
                assert_eq!(next_cancelled(&mut reader).await.unwrap().as_ref(), Some(body));
            }
            assert_eq!(next_cancelled(&mut reader).await.unwrap(), None);
        });
    }

    #[test]
    fn a_stream_cut_inside_a_frame_is_no_end(body in proptest::collection::vec(any::<u8>(), 1..300), cut in any::<proptest::sample::Index>()) {
        run(async {
            let mut writer = FrameWriter::new(Pieces::default());
            writer.push(&body).unwrap();
            writer.flush().await.unwrap();
            let wire = writer.into_inner().written;
            let cut = 1 + cut.index(wire.len() - 1);
            let mut reader = reader(&[&wire[..cut]]);
            for _ in 0..2 {
                let error = reader.next(LIMIT).await.unwrap_err();
                let missing = if cut < HEAD { HEAD - cut } else { wire.len() - cut };
                assert!(matches!(error, FrameError::Truncated { missing: m } if m == missing), "{error}");
            }
        });
    }

    #[test]
    fn noise_never_panics_nor_allocates(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        run(async {
            let mut reader = reader(&[&noise]);
            while let Ok(Some(_)) = reader.next(LIMIT).await {}
            assert!(reader.buffer.capacity() <= 2 * CHUNK);
        });
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
    run(async {
        let mut reader = reader(&[&101_u32.to_le_bytes()]);
        for _ in 0..2 {
            let error = reader.next(100).await.unwrap_err();
            assert!(matches!(error, FrameError::TooLong { length: 101, limit: 100 }), "{error}");
            assert!(error.is_malformed());
        }
        assert!(reader.buffer.capacity() <= CHUNK);
    });
}

#[test]
fn a_lying_length_within_the_limit_claims_one_chunk() {
    run(async {
        let mut reader = reader(&[&(512_u32 << 20).to_le_bytes(), b"little"]);
        let error = reader.next(1 << 30).await.unwrap_err();
        assert!(matches!(error, FrameError::Truncated { .. }), "{error}");
        assert!(reader.buffer.capacity() <= 2 * CHUNK, "{}", reader.buffer.capacity());
    });
}

#[test]
fn empty_frames_are_refused_on_both_sides() {
    run(async {
        assert!(matches!(reader(&[&[0; 4]]).next(LIMIT).await, Err(FrameError::Empty)));
        let mut writer = FrameWriter::new(Pieces::default());
        assert!(matches!(writer.push(b""), Err(FrameError::Empty)));
        assert_eq!(writer.pending(), 0);
    });
}

#[test]
fn frames_that_came_along_are_ready_without_waiting() {
    run(async {
        let mut reader = reader(&[b"\x01\0\0\0a\x01\0\0\0b\x02\0\0\0c"]);
        assert!(reader.ready(LIMIT).unwrap().is_none());
        assert_eq!(reader.next(LIMIT).await.unwrap().unwrap(), "a");
        assert_eq!(reader.ready(LIMIT).unwrap().unwrap(), "b");
        assert!(reader.ready(LIMIT).unwrap().is_none());
    });
}
