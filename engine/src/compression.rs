//! Compression of a log: the setting. Slabs are compressed where they are made (`slab`), and read piece by piece.

use lanterman_format::compressed_batch::Codec;
use lanterman_format::limits::COMPRESSED_BATCH_BYTES_MAX;
use lanterman_format::name::LogName;
use lanterman_format::settings::CompressionSettings;

use crate::core::Core;
use crate::error::{Error, Result};

/// How many bytes of messages are compressed together unless told otherwise: large enough that text shrinks well, small enough
/// that one message is uncompressed in some tens of microseconds.
const BATCH_BYTES_DEFAULT: u32 = 64 << 10;

/// How the messages of a log are compressed in slabs; see [`Store::set_compression`](crate::Store::set_compression).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    codec: Codec,
    level: u8,
    batch_bytes: u32,
}

impl Compression {
    /// LZ4: little work on both sides.
    #[must_use]
    pub fn lz4() -> Self {
        Compression {
            codec: Codec::Lz4,
            level: 0,
            batch_bytes: BATCH_BYTES_DEFAULT,
        }
    }

    /// Zstandard: smaller, at more work. Levels go from 1 to 19; 3 is its own default. Needs the feature `zstd`, also of
    /// programs that read.
    #[must_use]
    pub fn zstd(level: u8) -> Self {
        Compression {
            codec: Codec::Zstd,
            level,
            batch_bytes: BATCH_BYTES_DEFAULT,
        }
    }

    /// How many bytes of messages are compressed together. The more, the smaller they get, and the longer a read of one of them
    /// takes. From 1 byte (each message by itself) to 16 MiB; 64 KiB unless told otherwise.
    #[must_use]
    pub fn with_batch_bytes(self, bytes: u32) -> Self {
        Compression {
            batch_bytes: bytes,
            ..self
        }
    }

    /// How many bytes of messages are compressed together.
    #[must_use]
    pub fn batch_bytes(&self) -> u32 {
        self.batch_bytes
    }

    /// The codec by its name (`lz4`, `zstd`).
    #[must_use]
    pub fn codec_name(&self) -> &'static str {
        match self.codec {
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The level, of a codec that has levels.
    #[must_use]
    pub fn level(&self) -> Option<u8> {
        (self.codec == Codec::Zstd).then_some(self.level)
    }

    pub(crate) fn of_setting(told: &CompressionSettings) -> Self {
        Compression {
            codec: told.codec,
            level: told.level,
            batch_bytes: told.batch_bytes,
        }
    }

    fn as_setting(&self) -> Result<CompressionSettings> {
        let refused = |option, reason| Err(Error::InvalidOption { option, reason });
        if !self.codec.is_supported() {
            return refused("codec", "this program was built without the feature `zstd`");
        }
        let most = CompressionSettings::level_max(self.codec);
        if !(most.min(1)..=most).contains(&self.level) {
            return refused("level", "Zstandard has the levels 1 to 19");
        }
        if !(1..=COMPRESSED_BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            return refused("batch_bytes", "must be from 1 byte to 16 MiB");
        }
        Ok(CompressionSettings {
            codec: self.codec,
            level: self.level,
            batch_bytes: self.batch_bytes,
        })
    }
}

impl Core {
    /// Has slabs of a log compressed from now on, or no more.
    pub(crate) fn set_compression(&self, name: &str, compression: Option<&Compression>) -> Result<()> {
        self.check_writable("set the compression of a log")?;
        let name = LogName::parse(name)?;
        let told = compression.map(Compression::as_setting).transpose()?;
        let log = self.log_named(&name)?;
        self.change_settings(&log, |settings| {
            settings.compression = told;
            Ok(())
        })
    }
}
