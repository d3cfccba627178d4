//! Bulk reads by one helper thread, for systems that refuse io_uring.
//!
//! All readers of a disk share the thread. It comes with the first of them and goes with the last.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::bulk_read::read_plainly;
use super::{BulkReader, ReadCompletion, ReadRequest};

/// The thread of one disk, running or not.
#[derive(Debug, Default)]
pub(crate) struct ReadThread {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(ReadRequest, Arc<Answers>)>,
    readers: usize,
    is_running: bool,
}

/// What one reader gets back.
#[derive(Debug, Default)]
struct Answers {
    finished: Mutex<Vec<ReadCompletion>>,
    came: Condvar,
}

impl ReadThread {
    /// A reader with `depth` reads waiting or in flight.
    ///
    /// # Errors
    ///
    /// The system's refusal of a thread.
    pub(crate) fn reader(&self, depth: usize) -> io::Result<ThreadReader> {
        let mut state = self.shared.state.lock();
        if !state.is_running {
            let shared = Arc::clone(&self.shared);
            // It sees the reader counted, for it begins with the lock that is held here.
            std::thread::Builder::new()
                .name("lanterman-read".into())
                .spawn(move || run(&shared))?;
            state.is_running = true;
        }
        state.readers = state.readers.saturating_add(1);
        drop(state);
        Ok(ThreadReader {
            shared: Arc::clone(&self.shared),
            answers: Arc::default(),
            outstanding: 0,
            depth: depth.max(1),
        })
    }

    /// Whether the thread is there.
    #[cfg(test)]
    pub(crate) fn is_running(&self) -> bool {
        self.shared.state.lock().is_running
    }
}

fn run(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        if let Some((request, answers)) = state.waiting.pop_front() {
            drop(state);
            let completion = read_plainly(request, 0);
            answers.finished.lock().push(completion);
            answers.came.notify_one();
            state = shared.state.lock();
        } else if state.readers == 0 {
            state.is_running = false;
            return;
        } else {
            shared.called.wait(&mut state);
        }
    }
}

/// A [`BulkReader`] whose reads the thread does, in the order in which they came from all readers.
#[derive(Debug)]
pub(crate) struct ThreadReader {
    shared: Arc<Shared>,
    answers: Arc<Answers>,
    outstanding: usize,
    depth: usize,
}

impl BulkReader for ThreadReader {
    fn submit(&mut self, request: ReadRequest) {
        self.outstanding = self.outstanding.saturating_add(1);
        let answers = Arc::clone(&self.answers);
        self.shared.state.lock().waiting.push_back((request, answers));
        self.shared.called.notify_one();
    }

    fn reap(&mut self, wait: bool, completions: &mut Vec<ReadCompletion>) {
        let mut finished = self.answers.finished.lock();
        while wait && finished.is_empty() && self.outstanding > 0 {
            self.answers.came.wait(&mut finished);
        }
        self.outstanding = self.outstanding.saturating_sub(finished.len());
        completions.append(&mut finished);
    }

    fn in_flight(&self) -> usize {
        self.outstanding
    }

    fn has_room(&self) -> bool {
        self.outstanding < self.depth
    }
}

impl Drop for ThreadReader {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let before = state.waiting.len();
        state
            .waiting
            .retain(|(_, answers)| !Arc::ptr_eq(answers, &self.answers));
        let begun_never = before.saturating_sub(state.waiting.len());
        state.readers = state.readers.saturating_sub(1);
        drop(state);
        self.shared.called.notify_one();
        let begun = self.outstanding.saturating_sub(begun_never);
        // What was begun still writes into memory that counts as this reader's.
        let mut finished = self.answers.finished.lock();
        while finished.len() < begun {
            self.answers.came.wait(&mut finished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{AlignedBuffer, Disk, OpenMode, SystemDisk, SystemOptions};

    #[test]
    fn the_thread_comes_with_the_first_reader_and_goes_with_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [9; 40_000]).unwrap();
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        let thread = ReadThread::default();
        assert!(!thread.is_running());
        for _ in 0..3 {
            let mut readers = [thread.reader(8).unwrap(), thread.reader(8).unwrap()];
            for (token, reader) in (0_u64..).zip(&mut readers) {
                for _ in 0..8 {
                    reader.submit(ReadRequest {
                        file: disk.open(&path, OpenMode::Read).unwrap(),
                        position: 4096,
                        bytes: AlignedBuffer::new(8192).unwrap(),
                        length: 8192,
                        token,
                    });
                }
                assert!(!reader.has_room());
            }
            let mut completions = Vec::new();
            while readers[1].in_flight() > 0 {
                readers[1].reap(true, &mut completions);
            }
            assert_eq!(completions.len(), 8);
            for completion in &completions {
                assert!(completion.result.is_ok() && completion.token == 1);
                assert!(completion.bytes.as_ref().unwrap().iter().all(|byte| *byte == 9));
            }
            assert!(thread.is_running());
            drop(readers);
            while thread.is_running() {
                std::thread::yield_now();
            }
        }
    }
}
