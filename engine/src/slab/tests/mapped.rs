//! Slabs and nodes in a real file, through a real map.

use std::path::PathBuf;

use lanterman_format::{Histogram64, KeySketch, NodeEntry, NodeParts, node};

use super::*;
use crate::disk::{Disk, DiskFile, Mapping, OpenMode, Sync, SystemDisk, SystemOptions};
use crate::tree::{NodeSource, Tree, TreeError};

/// A segment file with a slab at the position that [`make`] seals for, and a node behind it.
#[derive(Debug)]
struct MappedSource {
    file: Arc<dyn DiskFile>,
    map: Arc<Mapping>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

const NODE_POSITION: u64 = 1 << 20;
const FILE_BYTES: u64 = 2 << 20;

impl MappedSource {
    fn new(blocks: &[(u64, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.reserve(0..FILE_BYTES).unwrap();
        for (position, bytes) in blocks {
            file.write_at(*position, bytes, Sync::No).unwrap();
        }
        let map = Arc::new(file.map(FILE_BYTES).unwrap());
        Self {
            file,
            map,
            path,
            _directory: directory,
        }
    }
}

impl SlabSource for MappedSource {
    fn store_id(&self) -> StoreId {
        STORE
    }

    fn open(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        let start = reference.position.get() as usize;
        let end = start.saturating_add(reference.bytes.get() as usize);
        SlabBytes::window(Arc::clone(&self.map), start..end, None).ok_or_else(|| SlabError::Missing {
            reference: Box::new(*reference),
        })
    }

    fn reread(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        let mut bytes = vec![0; reference.bytes.get() as usize];
        let read = self.file.read_at(reference.position.get(), &mut bytes);
        read.map_err(|error| SlabError::read(reference, 0..bytes.len(), error))?;
        let range = 0..bytes.len();
        Ok(SlabBytes::copied(Arc::new(bytes), range).unwrap())
    }

    fn keep(&self, _: &Arc<OpenSlab>) {}
}

/// A node over the slab, and its reference.
fn make_node(slab: &Reference, offset_count: u64) -> (Vec<u8>, Reference) {
    let identity = BlockIdentity {
        position: Position::new(NODE_POSITION),
        ..identity()
    };
    let parts = NodeParts {
        level: 0,
        entries: vec![NodeEntry {
            offset_end: offset_count,
            skip: 0,
            reference: *slab,
            summary: Summary::default(),
            keys: KeySketch::EMPTY,
        }],
        summary: Summary::default(),
        histogram: Histogram64::default(),
    };
    let mut bytes = Vec::new();
    let sealed = node::encode(&parts, &identity, &mut bytes).unwrap();
    (bytes, Reference::local(BlockKind::Node, &identity, &sealed))
}

fn slab_and_tree(made: &Made) -> (MappedSource, Reference) {
    let (node, root) = make_node(&made.reference, 200);
    let position = made.reference.position.get();
    (
        MappedSource::new(&[(position, &made.bytes), (NODE_POSITION, &node)]),
        root,
    )
}

#[test]
fn messages_are_found_through_a_tree_in_a_mapped_file() {
    let made = plain();
    let (source, root) = slab_and_tree(&made);
    let tree = Tree::from_reference(root, 200, None).unwrap();
    let context = ReadContext {
        source: &source,
        verify: Verify::Once,
    };
    for (offset, value) in made.values.iter().enumerate() {
        let placed = tree.find(&source, offset as u64).unwrap().unwrap();
        let handle = placed.entry.slab.as_ref().unwrap();
        let slab = handle.open(&source).unwrap();
        assert!(matches!(slab, Opened::Mapped(_)));
        let relative = placed.offset_in_slab(offset as u64).unwrap();
        let buffer = slab.message(relative, context).unwrap();
        assert_eq!(buffer.value(), value);
        let lent = slab.lend(buffer.value()).unwrap();
        assert_eq!(lent.as_ptr(), buffer.value().as_ptr(), "nothing is copied");
    }
    assert!(Arc::strong_count(&source.map) >= 2, "what is open counts its map");
}

#[test]
fn a_file_cut_short_by_others_is_an_error_of_opening_and_no_signal() {
    let made = plain();
    let (source, root) = slab_and_tree(&made);
    let handle = SlabHandle::new(made.reference);
    let whole = std::fs::read(&source.path).unwrap();
    for length in [0, 8192, 8192 + 4096] {
        std::fs::write(&source.path, &whole[..length]).unwrap();
        assert!(matches!(handle.open(&source), Err(SlabError::Read { .. })));
        assert!(matches!(
            source.load_node(&root),
            Err(TreeError::Fetch(SlabError::Read { .. }))
        ));
    }
    std::fs::write(&source.path, &whole).unwrap();
    let slab = handle.open(&source).unwrap();
    let context = ReadContext {
        source: &source,
        verify: Verify::Once,
    };
    assert_eq!(
        walked(&slab, 0..200, context).len(),
        200,
        "once the file is back, so are the messages"
    );
}

#[test]
fn a_node_that_is_another_or_damaged_is_refused() {
    let made = plain();
    let (mut bytes, root) = make_node(&made.reference, 200);
    let source = MappedSource::new(&[(NODE_POSITION, &bytes)]);
    assert_eq!(source.load_node(&root).unwrap().offset_count(), 200);
    let mut other = root;
    other.version = Version::new(1);
    assert!(matches!(source.load_node(&other), Err(TreeError::Damaged { .. })));
    let nothing = Reference {
        position: Position::new(4096),
        ..root
    };
    assert!(matches!(
        source.load_node(&nothing),
        Err(TreeError::Damaged { .. })
    ));
    for at in [5, 70, 300, 500] {
        bytes[at] ^= 1;
        let source = MappedSource::new(&[(NODE_POSITION, &bytes)]);
        assert!(matches!(source.load_node(&root), Err(TreeError::Damaged { .. })));
        bytes[at] ^= 1;
    }
}
