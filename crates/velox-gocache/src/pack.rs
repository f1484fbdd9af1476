//! The format of packs and indexes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read as _,
};

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::{
    CacheId,
    disk::{ActionEntry, LocalCache},
    hex, unhex,
};

const FORMAT: u32 = 1;
/// The size limit of packs, indexes and outputs.
pub(crate) const MAX_OBJECT_BYTES: u64 = 256 << 20;
pub(crate) const ZSTD_LEVEL: i32 = 3;

/// An index object.
#[derive(Serialize, Deserialize)]
pub(crate) struct IndexFile {
    format: u32,
    /// Whose actions these are; older writers don't name it.
    #[serde(default)]
    namespace: String,
    packs: Vec<PackFile>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct PackFile {
    pub(crate) name: String,
    pub(crate) outputs: Vec<OutputFile>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct OutputFile {
    pub(crate) output: String,
    pub(crate) size: u64,
    /// The compressed size.
    pub(crate) length: u64,
    pub(crate) actions: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Index {
    pub(crate) packs: Vec<Pack>,
    pub(crate) actions: HashMap<CacheId, OutputLocation>,
    /// The index objects and their packs.
    pub(crate) objects: Vec<(Path, Vec<PackFile>)>,
}

#[derive(Clone, Copy)]
pub(crate) struct OutputLocation {
    pub(crate) output: CacheId,
    pub(crate) size: u64,
    pub(crate) pack: usize,
}

pub(crate) struct Pack {
    pub(crate) name: String,
    pub(crate) outputs: Vec<PackedOutput>,
    /// After the download: whether the remote has it, undamaged.
    pub(crate) is_intact: OnceCell<bool>,
}

pub(crate) struct PackedOutput {
    pub(crate) output: CacheId,
    pub(crate) size: u64,
    pub(crate) length: u64,
}

impl IndexFile {
    /// The packs of an index object of this namespace; `None`: it is damaged, or of another namespace.
    pub(crate) fn read(content: &[u8], namespace: &str) -> Option<Vec<PackFile>> {
        let file: Self = serde_json::from_slice(&unpacked(content, MAX_OBJECT_BYTES)?).ok()?;
        let is_ours = file.namespace.is_empty() || file.namespace == namespace;
        (file.format == FORMAT && is_ours).then_some(file.packs)
    }

    /// The index object of these packs.
    pub(crate) fn write(namespace: &str, mut packs: Vec<PackFile>) -> std::io::Result<Vec<u8>> {
        packs.sort_by(|a, b| a.name.cmp(&b.name));
        packs.dedup_by(|a, b| a.name == b.name);
        let text = serde_json::to_vec(&Self { format: FORMAT, namespace: namespace.to_owned(), packs })?;
        zstd::encode_all(text.as_slice(), ZSTD_LEVEL)
    }
}

impl Index {
    /// An index of these objects.
    pub(crate) fn new(objects: Vec<(Path, Vec<PackFile>)>) -> Self {
        let mut index = Self::default();
        let mut known = HashSet::new();
        for pack in objects.iter().flat_map(|(_, packs)| packs) {
            if known.insert(pack.name.clone()) && unhex(&pack.name).is_some() {
                index.add(pack);
            }
        }
        index.objects = objects;
        index
    }

    /// Whether the remote has this result of an action.
    pub(crate) fn knows(&self, action: &CacheId, entry: &ActionEntry) -> bool {
        let is_broken = |pack: usize| self.packs.get(pack).is_some_and(Pack::is_broken);
        self.actions.get(action).is_some_and(|known| known.output == entry.output && !is_broken(known.pack))
    }

    fn add(&mut self, file: &PackFile) {
        let pack = self.packs.len();
        let mut outputs = Vec::new();
        for OutputFile { output, size, length, actions } in &file.outputs {
            // The offsets of the following ones are unknown.
            let Some(output) =
                unhex(output).filter(|_| *size <= MAX_OBJECT_BYTES && *length <= MAX_OBJECT_BYTES)
            else {
                break;
            };
            for action in actions.iter().filter_map(|action| unhex(action)) {
                self.actions.insert(action, OutputLocation { output, size: *size, pack });
            }
            outputs.push(PackedOutput { output, size: *size, length: *length });
        }
        self.packs.push(Pack { name: file.name.clone(), outputs, is_intact: OnceCell::new() });
    }
}

impl Pack {
    /// Whether it was found damaged or missing.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_intact.get() == Some(&false)
    }
}

/// Compresses outputs, without duplicates and without missing or changed ones.
pub(crate) fn packed(disk: &LocalCache, waiting: Vec<(CacheId, ActionEntry)>) -> (Vec<OutputFile>, Vec<u8>) {
    let mut by_output: BTreeMap<CacheId, (u64, Vec<String>)> = BTreeMap::new();
    let mut order = Vec::new();
    for (action, ActionEntry { output, size, .. }) in waiting {
        by_output
            .entry(output)
            .or_insert_with(|| {
                order.push(output);
                (size, Vec::new())
            })
            .1
            .push(hex(&action));
    }
    let (mut outputs, mut content) = (Vec::new(), Vec::new());
    for output in order {
        let Some((size, actions)) = by_output.remove(&output) else { continue };
        let compressed = disk
            .read_output(&output)
            .filter(|raw| raw.len() as u64 == size)
            .and_then(|raw| zstd::encode_all(raw.as_slice(), ZSTD_LEVEL).ok());
        let Some(compressed) = compressed else { continue };
        outputs.push(OutputFile { output: hex(&output), size, length: compressed.len() as u64, actions });
        content.extend(compressed);
    }
    (outputs, content)
}

pub(crate) fn unpack_to(
    disk: &LocalCache,
    output: &CacheId,
    size: u64,
    compressed: &[u8],
) -> std::io::Result<()> {
    let mut new = disk.new_output(output)?;
    // One extra byte detects oversized content.
    let mut content = zstd::Decoder::with_buffer(compressed)?.take(size + 1);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = content.read(&mut buffer)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else { break };
        new.write(chunk)?;
    }
    new.finish(size).map(drop)
}

pub(crate) fn unpacked(compressed: &[u8], limit: u64) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    zstd::Decoder::with_buffer(compressed).ok()?.take(limit).read_to_end(&mut content).ok()?;
    Some(content)
}
