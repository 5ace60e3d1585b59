//! Compressing on all cores, in order.
//!
//! The feeder deals work out, whichever worker is free takes it, and the writer collects the results in the order in which
//! they were dealt: with each job goes a ticket, ahead of it, on which its result will come. Bounded channels run one way, so
//! the order of the stream is kept without a queue to sort, no worker waits while there is work, and a slow store holds the
//! feeder back.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::SealError;
use super::reference::Reference;
use crate::format::manifest::Extent;
use crate::format::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::frame::Compressor;
use crate::patch;
use crate::state::ChunkHash;

/// Jobs for each worker that are dealt out and not collected: one that it works at, and another that waits for it or for the
/// writer.
const PER_WORKER: usize = 2;

/// A piece of the stream, on its way from the feeder to the writer.
pub(super) struct Job {
    /// What the stream consists of since the last job, in order.
    pub(super) items: Vec<Item>,
    /// New content, if the job brings any.
    pub(super) work: Option<Work>,
}

/// A run of the stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item {
    /// The chain has it.
    Known(Extent, Option<i64>),
    /// It is part of the new content in `slot`, which is dealt out now or soon.
    New { slot: u64, from: u64, bytes: u64 },
}

/// New content to be compressed.
pub(super) struct Work {
    /// The name under which items refer to it.
    pub(super) slot: u64,
    /// The content.
    pub(super) content: Vec<u8>,
    /// The chunks of the content, in order: hash and size.
    pub(super) chunks: Vec<(ChunkHash, u32)>,
    /// What it may be a patch of.
    pub(super) reference: Option<Reference>,
    /// An empty buffer for what becomes of it.
    pub(super) output: Vec<u8>,
}

/// What a worker made of a job.
pub(super) struct Done {
    pub(super) items: Vec<Item>,
    pub(super) result: Option<Packed>,
}

/// New content, compressed.
pub(super) struct Packed {
    pub(super) slot: u64,
    pub(super) chunks: Vec<(ChunkHash, u32)>,
    /// Size of the content.
    pub(super) content_bytes: u64,
    /// One zstd frame of a patch, or frames of a plain pack.
    pub(super) bytes: Vec<u8>,
    /// Position and size of the reference, if it is a patch.
    pub(super) reference: Option<(u64, u64)>,
}

/// What becomes of a job.
type Outcome = Result<Done, SealError>;

/// The feeder's end.
pub(super) struct Dealer {
    jobs: SyncSender<(Job, SyncSender<Outcome>)>,
    tickets: SyncSender<Receiver<Outcome>>,
    /// Used buffers that come back.
    spare: Receiver<Vec<u8>>,
}

/// The writer's end: the results in the order of the jobs.
pub(super) struct Collector {
    tickets: Receiver<Receiver<Outcome>>,
    spare: Spare,
}

/// Where buffers go that are done with.
#[derive(Clone)]
pub(super) struct Spare(SyncSender<Vec<u8>>);

/// The workers' end, which they share.
pub(super) struct Workers {
    jobs: Mutex<Receiver<(Job, SyncSender<Outcome>)>>,
    spare: Spare,
}

/// Channels for `count` workers.
pub(super) fn channels(count: usize) -> (Dealer, Workers, Collector) {
    let (spare_in, spare) = sync_channel(4 * count);
    let spare_in = Spare(spare_in);
    let (job_in, jobs) = sync_channel(count);
    let (ticket_in, tickets) = sync_channel(PER_WORKER * count);
    let dealer = Dealer { jobs: job_in, tickets: ticket_in, spare };
    let workers = Workers { jobs: Mutex::new(jobs), spare: spare_in.clone() };
    (dealer, workers, Collector { tickets, spare: spare_in })
}

impl Dealer {
    /// Hands a job to the next worker that is free; `false` if the other side has given up.
    pub(super) fn deal(&mut self, job: Job) -> bool {
        let (result, ticket) = sync_channel(1);
        self.tickets.send(ticket).is_ok() && self.jobs.send((job, result)).is_ok()
    }

    /// An empty buffer, a used one if there is one: large allocations cost page faults.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.spare.try_recv().unwrap_or_default()
    }
}

impl Spare {
    /// A buffer that is small, or that nobody waits for, is simply dropped.
    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() >= CHUNK_BYTES_MAX {
            buffer.clear();
            let _full = self.0.try_send(buffer);
        }
    }
}

impl Collector {
    /// Where the buffers of results go.
    pub(super) fn spare(&self) -> Spare {
        self.spare.clone()
    }
}

impl Iterator for Collector {
    type Item = Outcome;

    /// The next result in order; `None` when the feeder has ended and everything was collected.
    fn next(&mut self) -> Option<Self::Item> {
        self.tickets.recv().ok()?.recv().ok()
    }
}

impl Workers {
    /// What each worker does until the feeder ends or the writer gives up.
    pub(super) fn run(&self, level: i32) {
        let mut compressor = Compressor::new(level);
        while let Some((job, result)) = self.next() {
            let done = match job.work {
                None => Ok(Done { items: job.items, result: None }),
                Some(work) => pack(&mut compressor, work, &self.spare)
                    .map(|packed| Done { items: job.items, result: Some(packed) }),
            };
            if result.send(done).is_err() {
                return;
            }
        }
    }

    /// One waits for a job, the others for their turn to wait.
    fn next(&self) -> Option<(Job, SyncSender<Outcome>)> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }
}

fn pack(compressor: &mut Compressor, work: Work, spare: &Spare) -> Result<Packed, SealError> {
    let Work { slot, content, chunks, reference, output } = work;
    let content_bytes = content.len() as u64;
    let mut packed = Packed { slot, chunks, content_bytes, bytes: output, reference: None };
    if let Some(reference) = reference {
        if let Some(bytes) = patch::make_patch(&reference.bytes, &content)? {
            spare.give_back(std::mem::replace(&mut packed.bytes, bytes));
            packed.reference = Some((reference.at, reference.bytes.len() as u64));
        }
        spare.give_back(reference.bytes);
    }
    if packed.reference.is_none() {
        for piece in content.chunks(FRAME_BYTES_MAX) {
            compressor.frame(piece, &mut packed.bytes)?;
        }
    }
    spare.give_back(content);
    Ok(packed)
}
