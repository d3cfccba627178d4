//! Large reads through a ring, into memory that the ring has meanwhile.
#![allow(
    unsafe_code,
    reason = "The kernel writes memory after the call returns; no borrow can express that."
)]

use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, types};

use super::calls::{Call, cut};
use super::file::KernelFile;
use super::memory::AlignedBuffer;
use super::ring::{Ended, InFlight, Ring};

/// A ring for reads alone.
pub(crate) type ReadRing<P> = Ring<AlignedBuffer, P>;

/// The end of a read.
pub(crate) type EndedRead<P> = Ended<AlignedBuffer, P>;

/// A read that could not be queued, with what was given for it.
pub(crate) struct RefusedRead<P> {
    pub(crate) payload: P,
    pub(crate) bytes: AlignedBuffer,
}

impl<P> ReadRing<P> {
    /// Queues a read of `length` bytes at `position` into the front of `bytes`; [`Self::submit`] hands it over.
    ///
    /// # Errors
    ///
    /// What was given, where there is no room or `bytes` is shorter than `length`.
    pub(crate) fn queue(
        &mut self,
        file: &Arc<KernelFile>,
        position: u64,
        mut bytes: AlignedBuffer,
        length: usize,
        payload: P,
    ) -> Result<(), Box<RefusedRead<P>>> {
        let part = match bytes.get_mut(..length) {
            Some(part) if self.has_room() => part,
            _ => return Err(Box::new(RefusedRead { payload, bytes })),
        };
        let (descriptor, is_direct) = file.descriptor_for_reading(position, part);
        let begun = self.calls.begin(Call::RingRead);
        let wanted = part.len().min(self.bytes_max);
        let wanted = cut(wanted, begun.unwrap_or(usize::MAX), is_direct);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let entry = opcode::Read::new(types::Fd(descriptor.as_raw_fd()), part.as_mut_ptr(), wanted)
            .offset(position)
            .build();
        let in_flight = InFlight {
            _file: Arc::clone(file),
            memory: bytes,
            is_direct,
            planned: begun.err().map(rustix::io::Errno::raw_os_error),
            payload,
        };
        // SAFETY: the entry writes at most `length` bytes of `part`, which was bounded by the buffer above, through a descriptor of
        // the file. Nobody can reach the buffer while the ring holds it. Moving it there moves a handle; the pages that it
        // owns stay where they are.
        let pushed = unsafe { self.push(entry, in_flight) };
        pushed.map_err(|refused| {
            Box::new(RefusedRead {
                payload: refused.payload,
                bytes: refused.memory,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Calls;
    use super::super::file::{Choice, OpenMode};
    use super::*;

    #[test]
    fn reads_in_flight_come_back_with_their_memory_and_a_dropped_ring_waits_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(KernelFile::open(&path, OpenMode::Read, Choice::Auto).unwrap());
        let Ok(mut ring) = ReadRing::new(4, Calls::default()) else {
            return;
        };
        for quarter in 0..4_usize {
            let bytes = AlignedBuffer::new(1 << 20).unwrap();
            let position = (quarter << 20) as u64;
            assert!(ring.queue(&file, position, bytes, 1 << 20, quarter).is_ok());
        }
        assert!(!ring.has_room());
        let another = AlignedBuffer::new(4096).unwrap();
        assert!(ring.queue(&file, 0, another, 4096, 9).is_err());
        ring.submit().unwrap();
        let mut ended = Vec::new();
        while ring.in_flight() > 0 {
            ring.collect(true, &mut ended).unwrap();
        }
        for end in &ended {
            let start = end.payload << 20;
            assert_eq!(end.result.as_ref().ok(), Some(&(1 << 20)));
            assert!(end.memory[..] == content[start..start + (1 << 20)]);
        }
        assert_eq!(ended.len(), 4);
        let bytes = ended.pop().unwrap().memory;
        assert!(ring.queue(&file, 0, bytes, 1 << 20, 0).is_ok());
        ring.submit().unwrap();
        drop(ring);
    }

    #[test]
    fn a_read_longer_than_its_memory_is_refused_and_the_memory_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [1; 9000]).unwrap();
        let file = Arc::new(KernelFile::open(&path, OpenMode::Read, Choice::Auto).unwrap());
        let Ok(mut ring) = ReadRing::new(1, Calls::default()) else {
            return;
        };
        let bytes = AlignedBuffer::new(4096).unwrap();
        let refused = ring.queue(&file, 0, bytes, 4097, ()).err().unwrap();
        assert_eq!((refused.bytes.len(), ring.in_flight()), (4096, 0));
    }
}
