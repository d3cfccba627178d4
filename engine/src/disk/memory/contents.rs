//! The contents of a file as programs see them: pages on the heap until somebody maps the file, and from then on an
//! unnamed file of the kernel. Crash images are made by the ten thousand and are hardly ever mapped.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::sys::file::{KernelFile, Sync};
use crate::sys::map::Advice;

use super::unit::{Image, PAGE, pages_of};

#[derive(Debug)]
enum Form {
    /// Shared with whoever has the same pages, until one of them writes.
    Pages(Arc<Image>),
    Kernel(Arc<KernelFile>),
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Contents {
    form: RwLock<Form>,
}

impl Contents {
    pub(super) fn new(image: Arc<Image>) -> Self {
        Self {
            form: RwLock::new(Form::Pages(image)),
        }
    }

    /// The same contents in a file of their own.
    pub(super) fn copied(&self, allocated: impl Iterator<Item = u64>) -> io::Result<Self> {
        let form = self.form.read();
        let file = match &*form {
            Form::Pages(image) => return Ok(Self::new(Arc::clone(image))),
            Form::Kernel(file) => file,
        };
        let mut image = Image::default();
        image.lengthen(file.bytes()?);
        let mut page = vec![0; usize::try_from(PAGE).unwrap_or(0)];
        for number in allocated {
            let read = file.read_at(number * PAGE, &mut page)?;
            let bytes = page.get(..read).unwrap_or(&[]);
            if bytes.iter().any(|&byte| byte != 0) {
                image.write(number * PAGE, bytes);
            }
        }
        Ok(Self::new(Arc::new(image)))
    }

    /// The contents as a file of the kernel, which they are from now on.
    pub(super) fn kernel_file(&self) -> io::Result<Arc<KernelFile>> {
        let mut form = self.form.write();
        let image = match &*form {
            Form::Kernel(file) => return Ok(Arc::clone(file)),
            Form::Pages(image) => image,
        };
        let file = Arc::new(KernelFile::in_memory()?);
        file.lengthen(image.bytes)?;
        for (&page, bytes) in &image.pages {
            let kept = usize::try_from(image.bytes.saturating_sub(page * PAGE)).unwrap_or(usize::MAX);
            file.write_at(page * PAGE, bytes.get(..kept).unwrap_or(bytes), Sync::No)?;
        }
        *form = Form::Kernel(Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(&*self.form.read(), Form::Kernel(_))
    }

    pub(super) fn bytes(&self) -> io::Result<u64> {
        match &*self.form.read() {
            Form::Pages(image) => Ok(image.bytes),
            Form::Kernel(file) => file.bytes(),
        }
    }

    pub(super) fn lengthen(&self, bytes: u64) -> io::Result<()> {
        match &mut *self.form.write() {
            Form::Pages(image) => Arc::make_mut(image).lengthen(bytes),
            Form::Kernel(file) => file.lengthen(bytes)?,
        }
        Ok(())
    }

    pub(super) fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        match &*self.form.read() {
            Form::Pages(image) => Ok(image.read(position, bytes)),
            Form::Kernel(file) => file.read_at(position, bytes),
        }
    }

    pub(super) fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut *self.form.write() {
            Form::Pages(image) => {
                let image = Arc::make_mut(image);
                for (part, offset) in pages_of(position, bytes.len() as u64) {
                    let count = usize::try_from(part.end - part.start).unwrap_or(0);
                    image.write(part.start, bytes.get(offset..offset + count).unwrap_or_default());
                }
                Ok(())
            }
            Form::Kernel(file) => file.write_at(position, bytes, Sync::No),
        }
    }

    pub(super) fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        match &*self.form.read() {
            Form::Pages(_) => Ok(()),
            Form::Kernel(file) => file.advise(range, advice),
        }
    }

    pub(super) fn punch(&self, range: Range<u64>) -> io::Result<()> {
        if range.start > range.end {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match &mut *self.form.write() {
            Form::Pages(image) => {
                Arc::make_mut(image).punch(&range);
                Ok(())
            }
            Form::Kernel(file) => file.punch(range),
        }
    }
}
