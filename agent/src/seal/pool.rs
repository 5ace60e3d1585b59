//! Compressing on all cores, in order.
//!
//! The feeder deals work to the workers in turn and the writer collects in the same turn, over bounded channels that run
//! one way: the order of the stream is kept without a queue to sort, and a slow store holds the feeder back.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::SealError;
use super::reference::Reference;
use crate::format::manifest::Extent;
use crate::format::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use crate::frame::Compressor;
use crate::patch;
use crate::state::ChunkHash;

/// Work waiting in front of and behind each worker.
const QUEUE: usize = 1;

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

/// The feeder's end: deals jobs out in turn.
pub(super) struct Dealer {
    senders: Vec<SyncSender<Job>>,
    turn: usize,
    /// Used buffers that come back.
    spare: Receiver<Vec<u8>>,
}

/// The writer's end: collects results in the same turn.
pub(super) struct Collector {
    receivers: Vec<Receiver<Result<Done, SealError>>>,
    turn: usize,
    spare: Spare,
}

/// Where buffers go that are done with.
#[derive(Clone)]
pub(super) struct Spare(SyncSender<Vec<u8>>);

/// One worker's ends.
pub(super) struct Worker {
    jobs: Receiver<Job>,
    results: SyncSender<Result<Done, SealError>>,
    spare: Spare,
}

/// Channels for `count` workers.
pub(super) fn channels(count: usize) -> (Dealer, Vec<Worker>, Collector) {
    let (spare_in, spare) = sync_channel(4 * count);
    let spare_in = Spare(spare_in);
    let mut dealer = Dealer { senders: Vec::new(), turn: 0, spare };
    let mut collector = Collector { receivers: Vec::new(), turn: 0, spare: spare_in.clone() };
    let mut workers = Vec::new();
    for _ in 0..count {
        let (job_in, jobs) = sync_channel(QUEUE);
        let (results, result_out) = sync_channel(QUEUE);
        dealer.senders.push(job_in);
        collector.receivers.push(result_out);
        workers.push(Worker { jobs, results, spare: spare_in.clone() });
    }
    (dealer, workers, collector)
}

impl Dealer {
    /// Hands a job to the worker whose turn it is; `false` if the other side has given up.
    pub(super) fn deal(&mut self, job: Job) -> bool {
        let Some(sender) = self.senders.get(self.turn) else { return false };
        self.turn = (self.turn + 1) % self.senders.len();
        sender.send(job).is_ok()
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
    type Item = Result<Done, SealError>;

    /// The next result in order; `None` when the feeder has ended and everything was collected.
    fn next(&mut self) -> Option<Self::Item> {
        let received = self.receivers.get(self.turn)?.recv().ok()?;
        self.turn = (self.turn + 1) % self.receivers.len();
        Some(received)
    }
}

impl Worker {
    /// Works until the feeder ends or the writer gives up.
    pub(super) fn run(self, level: i32) {
        let mut compressor = Compressor::new(level);
        for job in self.jobs {
            let done = match job.work {
                None => Ok(Done { items: job.items, result: None }),
                Some(work) => pack(&mut compressor, work, &self.spare)
                    .map(|packed| Done { items: job.items, result: Some(packed) }),
            };
            if self.results.send(done).is_err() {
                return;
            }
        }
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
