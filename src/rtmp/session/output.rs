//! What waits to be written to one client.

use crate::rtmp::frame::{Frame, chunks};
use crate::rtmp::message::{Kind, STREAM_ID};
use bytes::Bytes;
use std::collections::VecDeque;

/// Room that answers have beyond the limit, so that a player whose queue is full of media can still be told something.
const ANSWERS: usize = 64 << 10;

/// A queue of slices, bounded in bytes.
#[derive(Debug)]
pub(super) struct Output {
    slices: VecDeque<Bytes>,
    len: usize,
    max: usize,
}

impl Output {
    pub(super) fn new(max: usize) -> Self {
        Self { slices: VecDeque::new(), len: 0, max }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let slice = self.slices.pop_front()?;
        self.len = self.len.saturating_sub(slice.len());
        Some(slice)
    }

    pub(super) fn push(&mut self, slice: Bytes) {
        self.len = self.len.saturating_add(slice.len());
        self.slices.push_back(slice);
    }

    /// Queues a frame unless the limit would be passed.
    pub(super) fn push_frame(&mut self, frame: &Frame) -> bool {
        if self.len.saturating_add(frame.wire_len()) > self.max {
            return false;
        }
        self.slices.extend(frame.parts().iter().cloned());
        self.len = self.len.saturating_add(frame.wire_len());
        true
    }

    /// Whether answers have passed the limit and their room beyond it.
    pub(super) fn is_overfull(&self) -> bool {
        self.len > self.max.saturating_add(ANSWERS)
    }

    /// A message of the connection: protocol control or user control.
    pub(super) fn control(&mut self, kind: Kind, payload: Bytes) {
        self.message(kind, 0, payload);
    }

    /// A command on the connection: answers to calls.
    pub(super) fn answer(&mut self, payload: Bytes) {
        self.message(Kind::CommandAmf0, 0, payload);
    }

    /// A command on the stream: `onStatus`.
    pub(super) fn status(&mut self, payload: Bytes) {
        self.message(Kind::CommandAmf0, STREAM_ID, payload);
    }

    /// A data message on the stream.
    pub(super) fn data(&mut self, payload: Bytes) {
        self.message(Kind::DataAmf0, STREAM_ID, payload);
    }

    fn message(&mut self, kind: Kind, stream: u32, payload: Bytes) {
        for slice in chunks(kind, stream, 0, &[], payload) {
            self.push(slice);
        }
    }
}
