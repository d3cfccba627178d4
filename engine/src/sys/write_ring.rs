//! Large writes through a ring, of bytes that several share.
#![allow(
    unsafe_code,
    reason = "The kernel reads memory after the call returns; no borrow can express that."
)]

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, types};

use super::calls::{Call, cut};
use super::file::KernelFile;
use super::ring::{Ended, InFlight, Ring};
use super::{SharedBytes, length_within};

/// A ring for writes alone.
pub(crate) type WriteRing<P> = Ring<SharedBytes, P>;

/// The end of a write.
pub(crate) type EndedWrite<P> = Ended<SharedBytes, P>;

impl<P> WriteRing<P> {
    /// Queues a write of `range` of the bytes; [`Self::submit`] hands it over.
    ///
    /// # Errors
    ///
    /// `WouldBlock` without room, `InvalidInput` for a range outside; the payload is then gone.
    pub(crate) fn queue(
        &mut self,
        file: &Arc<KernelFile>,
        position: u64,
        bytes: &SharedBytes,
        range: Range<usize>,
        payload: P,
    ) -> io::Result<()> {
        let all: &[u8] = (**bytes).as_ref();
        let length = length_within(&range, all.len())?.min(self.bytes_max);
        let part = all
            .get(range.start..range.start + length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let (descriptor, is_direct) = file.descriptor_for(position, part);
        let begun = self.calls.begin(Call::RingWrite);
        let length = cut(part.len(), begun.unwrap_or(usize::MAX), is_direct);
        let length = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entry = opcode::Write::new(types::Fd(descriptor.as_raw_fd()), part.as_ptr(), length)
            .offset(position)
            .build();
        let in_flight = InFlight {
            _file: Arc::clone(file),
            memory: Arc::clone(bytes),
            is_direct,
            planned: begun.err().map(rustix::io::Errno::raw_os_error),
            payload,
        };
        // SAFETY: the entry reads `length` bytes of `part` through a descriptor of the file. The bytes neither move nor change
        // while a clone of their owner is held: they came from a shared borrow of a value inside an `Arc`, and no exclusive
        // borrow of it can exist meanwhile.
        let pushed = unsafe { self.push(entry, in_flight) };
        pushed.map_err(|_| io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::calls::Calls;
    use super::super::file::{Choice, OpenMode};
    use super::super::memory::AlignedBuffer;
    use super::*;

    /// Bytes that look, when they are freed, whether the file has them already.
    struct Witness {
        bytes: AlignedBuffer,
        file: Arc<KernelFile>,
        were_written: Arc<AtomicBool>,
    }

    impl AsRef<[u8]> for Witness {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            let mut found = vec![0; self.bytes.len()];
            let read = self.file.read_at(0, &mut found).unwrap_or(0);
            self.were_written.store(
                read == found.len() && found[..] == self.bytes[..],
                Ordering::Relaxed,
            );
        }
    }

    #[test]
    fn a_ring_that_is_dropped_with_writes_in_flight_frees_their_bytes_only_when_the_kernel_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Arc::new(KernelFile::open(&path, OpenMode::CreateNew, Choice::Auto).unwrap());
        let mut bytes = AlignedBuffer::new(16 << 20).unwrap();
        bytes.fill(7);
        let were_written = Arc::new(AtomicBool::new(false));
        let Ok(mut ring) = WriteRing::new(4, Calls::default()) else {
            return;
        };
        let witness: SharedBytes = Arc::new(Witness {
            bytes,
            file: Arc::clone(&file),
            were_written: Arc::clone(&were_written),
        });
        for quarter in 0..4 {
            let start = quarter * (4 << 20);
            ring.queue(&file, start as u64, &witness, start..start + (4 << 20), ())
                .unwrap();
        }
        assert!(!ring.has_room());
        assert!(ring.queue(&file, 0, &witness, 0..1, ()).is_err());
        drop(witness);
        ring.submit().unwrap();
        drop(ring);
        assert!(were_written.load(Ordering::Relaxed));
    }
}
