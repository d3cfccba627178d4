//! Cutting a stream of bytes into messages, within bounded memory.

use std::io::{self, Read};

/// What is asked of the source at once, and the buffer's size while messages are small.
const READ_BYTES: usize = 1 << 20;

/// Cuts what `source` gives at each delimiter. A last message without one counts; nothing behind a last delimiter does
/// not.
pub(crate) struct Messages<R> {
    source: R,
    delimiter: u8,
    /// Longest message that is taken.
    limit: usize,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are read and not yet given out.
    start: usize,
    end: usize,
    /// Where to look for the next delimiter: what was looked at in vain is not looked at again.
    looked: usize,
    finished: bool,
}

/// Why there is no next message.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The message is longer than the limit.
    TooLong,
    /// The source failed.
    Read(io::Error),
}

impl<R: Read> Messages<R> {
    pub(crate) fn new(source: R, delimiter: u8, limit: usize) -> Self {
        let buffer = vec![0; READ_BYTES];
        Messages {
            source,
            delimiter,
            limit,
            buffer,
            start: 0,
            end: 0,
            looked: 0,
            finished: false,
        }
    }

    /// The next message without its delimiter; `None` at the end of the source.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Refusal> {
        loop {
            let ahead = self.buffer.get(self.looked..self.end).unwrap_or_default();
            if let Some(found) = memchr::memchr(self.delimiter, ahead) {
                let at = self.looked + found;
                if at - self.start > self.limit {
                    return Err(Refusal::TooLong);
                }
                let message = self.start..at;
                self.start = at + 1;
                self.looked = self.start;
                return Ok(self.buffer.get(message));
            }
            self.looked = self.end;
            if self.end - self.start > self.limit {
                return Err(Refusal::TooLong);
            }
            if self.finished {
                let message = self.start..self.end;
                self.start = self.end;
                return Ok(self.buffer.get(message).filter(|rest| !rest.is_empty()));
            }
            self.read_more()?;
        }
    }

    #[cold]
    fn read_more(&mut self) -> Result<(), Refusal> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.looked -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            // Doubles, up to what the limit can need: a huge message costs a copy a doubling, and no more memory.
            let most = self.limit.saturating_add(READ_BYTES);
            let wanted = self.buffer.len().saturating_mul(2).min(most.max(READ_BYTES));
            self.buffer.resize(wanted.max(self.end + 1), 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(0) => self.finished = true,
                Ok(got) => self.end += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Refusal::Read(error)),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives at most so many bytes at a time, as pipes do.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let take = self.1.min(self.0.len()).min(out.len());
            let (now, later) = self.0.split_at(take);
            out[..take].copy_from_slice(now);
            self.0 = later;
            Ok(take)
        }
    }

    fn cut(bytes: &[u8], at_once: usize, limit: usize) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut messages = Messages::new(Dribble(bytes, at_once), b'\n', limit);
        let mut all = Vec::new();
        while let Some(message) = messages.next()? {
            all.push(message.to_vec());
        }
        Ok(all)
    }

    #[test]
    fn lines_are_cut_however_the_bytes_arrive() {
        let text = b"one\n\n\xff\x00two\r\nlast";
        let expected: Vec<Vec<u8>> = vec![b"one".into(), b"".into(), b"\xff\x00two\r".into(), b"last".into()];
        for at_once in [1, 2, 3, 1000] {
            assert_eq!(cut(text, at_once, 100).unwrap(), expected);
        }
        assert_eq!(cut(b"a\n", 1, 100).unwrap(), vec![b"a".to_vec()]);
        assert_eq!(cut(b"\n", 1, 100).unwrap(), vec![b"".to_vec()]);
        assert!(cut(b"", 1, 100).unwrap().is_empty());
    }

    #[test]
    fn the_longest_message_passes_and_one_byte_more_does_not() {
        for at_once in [1, 7, 1000] {
            assert_eq!(cut(b"12345\n1234567", at_once, 7).unwrap().len(), 2);
            assert!(matches!(
                cut(b"12345\n12345678", at_once, 7),
                Err(Refusal::TooLong)
            ));
            assert!(matches!(cut(b"12345678\n1", at_once, 7), Err(Refusal::TooLong)));
        }
    }

    #[test]
    fn memory_stays_within_the_limit_and_one_buffer() {
        let limit = 3 * READ_BYTES;
        let mut bytes = vec![b'x'; limit];
        bytes.push(b'\n');
        bytes.extend_from_slice(&vec![b'y'; limit + 1]);
        let mut messages = Messages::new(Dribble(&bytes, 12_345), b'\n', limit);
        assert_eq!(messages.next().unwrap().map(<[u8]>::len), Some(limit));
        assert!(matches!(messages.next(), Err(Refusal::TooLong)));
        assert!(messages.buffer.len() <= limit + READ_BYTES);
    }
}
