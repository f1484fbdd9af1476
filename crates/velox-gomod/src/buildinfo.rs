//! The build information that the Go linker embeds in binaries, as printed by `go version -m`
//! (<https://pkg.go.dev/debug/buildinfo>, <https://pkg.go.dev/runtime/debug#BuildInfo>).
//!
//! The data section contains a 32-byte header, aligned to 16 bytes: the magic, the pointer size, flags. Since
//! Go 1.18, two strings follow, each after its varint length: the Go version and the modules. Earlier, the
//! header had two pointers to Go strings. The modules are lines of text between two 16-byte markers.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use object::{
    Endianness, FileKind, LittleEndian, elf, macho, pe,
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader as _, SectionHeader as _},
        macho::{FatArch as _, MachHeader, MachOFatFile32, MachOFatFile64, Section as _, Segment as _},
        pe::{ImageNtHeaders, ImageOptionalHeader as _},
    },
};

use crate::gostring::unquote;

const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGNMENT: u64 = 16;
const HEADER_BYTES: u64 = 32;
/// The read size of the search for the magic; a multiple of the alignment.
const CHUNK_BYTES: u64 = 1 << 20;
/// The size limit of a string. A binary with 200 modules has 20 KiB.
const MAX_TEXT_BYTES: u64 = 16 << 20;
const MAX_SECTIONS: usize = 1 << 16;

/// The build information of a Go binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The Go version (`go1.26.8`).
    pub go_version: String,
    /// The path of the main package; `command-line-arguments` when built from single files.
    pub path: String,
    /// The module of the main package; empty when built outside a module.
    pub main: BuildModule,
    /// The dependencies with a package in the binary.
    pub deps: Vec<BuildModule>,
    /// The build settings, in order (`-tags`, `CGO_ENABLED`, `GOOS`, `vcs.revision`).
    pub settings: Vec<(String, String)>,
}

/// A module in a binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildModule {
    /// The module path.
    pub path: String,
    /// The version; `(devel)` for a main module without one.
    pub version: String,
    /// The go.sum checksum; empty for replaced modules and directories.
    pub sum: String,
    /// The replacement.
    pub replace: Option<Box<BuildModule>>,
}

/// An error reading build information.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildInfoError {
    /// The file can't be read.
    #[error("failed to read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file isn't a binary of a known format.
    #[error("`{}` is not an ELF, Mach-O or PE binary", .0.display())]
    UnknownFormat(PathBuf),
    /// The binary has no Go build information.
    #[error("`{}` is not a Go binary", .0.display())]
    NotGo(PathBuf),
    /// The module text is malformed.
    #[error("malformed build information in `{}`: line {line}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        reason: &'static str,
    },
}

impl BuildInfo {
    /// Reads the build information of a binary for any platform; universal Mach-O files use the first one.
    pub fn read(path: &Path) -> Result<Self, BuildInfoError> {
        let failed = |failure| match failure {
            ReadFailure::Read(source) => BuildInfoError::Read { path: path.to_owned(), source },
            ReadFailure::UnknownFormat => BuildInfoError::UnknownFormat(path.to_owned()),
            ReadFailure::NotGo => BuildInfoError::NotGo(path.to_owned()),
        };
        let mut file = File::open(path).map_err(|source| failed(ReadFailure::Read(source)))?;
        let (go_version, modules) = read_texts(&mut file).map_err(failed)?;
        let mut info = Self::parse(&modules).map_err(|(line, reason)| BuildInfoError::Malformed {
            path: path.to_owned(),
            line,
            reason,
        })?;
        info.go_version = go_version;
        Ok(info)
    }

    /// Parses the module text (`debug.ParseBuildInfo`); the error is the malformed line and the cause.
    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut info = Self::default();
        // The module replaced by a following `=>` line.
        let mut replaceable: Option<&mut BuildModule> = None;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            // As in Go, an unterminated last line is ignored.
            let Some(line) = line.strip_suffix('\n') else { break };
            let at = |reason| (number + 1, reason);
            match line.split_once('\t') {
                Some(("path", path)) => path.clone_into(&mut info.path),
                Some(("mod", columns)) => {
                    info.main = module(columns, 2).ok_or(at("expected a path, a version and a sum"))?;
                    replaceable = Some(&mut info.main);
                }
                Some(("dep", columns)) => {
                    info.deps.push(module(columns, 2).ok_or(at("expected a path, a version and a sum"))?);
                    replaceable = info.deps.last_mut();
                }
                Some(("=>", columns)) => {
                    let replacement = module(columns, 3).ok_or(at("expected a path, a version and a sum"))?;
                    let replaced = replaceable.take().ok_or(at("a replacement of no module"))?;
                    replaced.replace = Some(Box::new(replacement));
                }
                Some(("build", setting)) => info.settings.push(self::setting(setting).map_err(at)?),
                _ => {}
            }
        }
        Ok(info)
    }
}

/// Parses the columns of a module; the checksum (third) is optional if `least` is 2.
fn module(columns: &str, least: usize) -> Option<BuildModule> {
    let columns: Vec<_> = columns.split('\t').collect();
    match *columns.as_slice() {
        [path, version] if least == 2 => {
            Some(BuildModule { path: path.to_owned(), version: version.to_owned(), ..BuildModule::default() })
        }
        [path, version, sum] => Some(BuildModule {
            path: path.to_owned(),
            version: version.to_owned(),
            sum: sum.to_owned(),
            replace: None,
        }),
        _ => None,
    }
}

/// Parses `key=value`, each optionally a Go string literal.
fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = if text.starts_with(['"', '`']) {
        let (key, rest) = unquote(text).ok_or("malformed quoted key")?;
        (key, rest.strip_prefix('=').ok_or("expected = after the key")?)
    } else {
        let (key, value) = text.split_once('=').ok_or("expected = after the key")?;
        if key.is_empty() || key.contains([' ', '\t', '\r', '"', '`']) {
            return Err("the key must be quoted");
        }
        (key.to_owned(), value)
    };
    let value = if value.starts_with(['"', '`']) {
        unquote(value).filter(|(_, rest)| rest.is_empty()).ok_or("malformed quoted value")?.0
    } else if value.contains([' ', '\t', '\r', '"', '`']) {
        return Err("the value must be quoted");
    } else {
        value.to_owned()
    };
    Ok((key, value))
}

/// A [`BuildInfoError`] without the path.
enum ReadFailure {
    Read(io::Error),
    UnknownFormat,
    NotGo,
}

impl From<object::read::Error> for ReadFailure {
    fn from(_: object::read::Error) -> Self {
        Self::UnknownFormat
    }
}

/// The memory layout of a binary.
#[derive(Default)]
struct Image {
    regions: Vec<Region>,
    /// The address and size of the section or segment with the build information.
    data: Option<(u64, u64)>,
}

/// A range of the file and its load address.
struct Region {
    address: u64,
    offset: u64,
    size: u64,
}

/// Reads the Go version, and the module text without its markers.
fn read_texts(file: &mut File) -> Result<(String, String), ReadFailure> {
    let image = {
        let cache = ReadCache::new(&mut *file);
        image(&cache)?
    };
    let mut memory = Memory { file, image };
    let header_at = memory.find_magic()?;
    let header = memory.read(header_at, HEADER_BYTES)?;
    let (Some(pointer_size), Some(flags), Some(pointers)) =
        (header.get(14), header.get(15), header.get(16..))
    else {
        return Err(ReadFailure::NotGo);
    };
    let (version, modules) = if flags & 2 != 0 {
        let (version, next) =
            memory.varint_string(header_at.checked_add(HEADER_BYTES).ok_or(ReadFailure::NotGo)?)?;
        (version, memory.varint_string(next)?.0)
    } else {
        let layout = Pointers::new(*pointer_size, flags & 1 != 0).ok_or(ReadFailure::NotGo)?;
        let (version, modules) = layout.two(pointers).ok_or(ReadFailure::NotGo)?;
        // As in Go, an unreadable string is empty.
        (
            memory.go_string(layout, version).unwrap_or_default(),
            memory.go_string(layout, modules).unwrap_or_default(),
        )
    };
    let version =
        String::from_utf8(version).ok().filter(|version| !version.is_empty()).ok_or(ReadFailure::NotGo)?;
    // The markers are 16 bytes each; the text between them ends with a newline.
    let modules = match modules.len().checked_sub(33) {
        Some(_) => {
            modules.get(16..modules.len() - 16).filter(|text| text.ends_with(b"\n")).unwrap_or_default()
        }
        None => &[],
    };
    Ok((version, String::from_utf8_lossy(modules).into_owned()))
}

/// The pointer encoding of a binary.
#[derive(Clone, Copy)]
struct Pointers {
    size: usize,
    big_endian: bool,
}

impl Pointers {
    fn new(size: u8, big_endian: bool) -> Option<Self> {
        matches!(size, 4 | 8).then_some(Self { size: usize::from(size), big_endian })
    }

    /// Decodes two pointers, or a pointer and a length, from the start of `bytes`.
    fn two(self, bytes: &[u8]) -> Option<(u64, u64)> {
        Some((self.one(bytes.get(..self.size)?), self.one(bytes.get(self.size..2 * self.size)?)))
    }

    fn one(self, bytes: &[u8]) -> u64 {
        let append = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
    }
}

/// A binary's memory, read from the file.
struct Memory<'a> {
    file: &'a mut File,
    image: Image,
}

impl Memory<'_> {
    /// Reads up to `size` bytes at an address, fewer at the end of the section or file.
    fn read(&mut self, address: u64, size: u64) -> Result<Vec<u8>, ReadFailure> {
        let region = self.image.regions.iter().find_map(|region| {
            let skipped = address.checked_sub(region.address)?;
            let left = region.size.checked_sub(skipped).filter(|left| *left > 0)?;
            Some((region.offset.checked_add(skipped)?, left))
        });
        let (offset, left) = region.ok_or(ReadFailure::UnknownFormat)?;
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(offset)).map_err(|_| ReadFailure::UnknownFormat)?;
        self.file.take(size.min(left)).read_to_end(&mut bytes).map_err(ReadFailure::Read)?;
        Ok(bytes)
    }

    /// Reads exactly `size` bytes of text.
    fn text(&mut self, address: u64, size: u64) -> Result<Vec<u8>, ReadFailure> {
        if size == 0 {
            return Ok(Vec::new());
        }
        if size > MAX_TEXT_BYTES {
            return Err(ReadFailure::NotGo);
        }
        self.read(address, size)
            .and_then(|text| if text.len() as u64 == size { Ok(text) } else { Err(ReadFailure::NotGo) })
    }

    /// Finds the address of the header.
    fn find_magic(&mut self) -> Result<u64, ReadFailure> {
        let (start, size) = self.image.data.filter(|(_, size)| *size > 0).ok_or(ReadFailure::NotGo)?;
        let end = start.checked_add(size).ok_or(ReadFailure::UnknownFormat)?;
        let mut at = start.checked_next_multiple_of(ALIGNMENT).ok_or(ReadFailure::NotGo)?;
        while at < end {
            // The header is aligned, so its magic never spans two chunks.
            let chunk = self.read(at, CHUNK_BYTES.min(end - at))?;
            let found = chunk.chunks(16).position(|line| line.starts_with(MAGIC));
            if let Some(line) = found {
                return Ok(at + line as u64 * ALIGNMENT);
            }
            if chunk.is_empty() {
                break;
            }
            at = at.checked_add(CHUNK_BYTES).ok_or(ReadFailure::NotGo)?;
        }
        Err(ReadFailure::NotGo)
    }

    /// Reads a string after its varint length (<https://pkg.go.dev/encoding/binary#Uvarint>), and its end.
    fn varint_string(&mut self, address: u64) -> Result<(Vec<u8>, u64), ReadFailure> {
        let prefix = self.read(address, 10)?;
        let mut length = 0_u64;
        for (number, byte) in (0_u32..).zip(&prefix) {
            let bits = u64::from(byte & 0x7f);
            length |= bits
                .checked_shl(7 * number)
                .filter(|moved| moved >> (7 * number) == bits)
                .ok_or(ReadFailure::NotGo)?;
            if byte & 0x80 == 0 {
                let start = address.checked_add(u64::from(number) + 1).ok_or(ReadFailure::NotGo)?;
                let text = self.text(start, length)?;
                return Ok((text, start.checked_add(length).ok_or(ReadFailure::NotGo)?));
            }
        }
        Err(ReadFailure::NotGo)
    }

    /// Reads the string whose pointer and length are at an address.
    fn go_string(&mut self, layout: Pointers, address: u64) -> Result<Vec<u8>, ReadFailure> {
        let header = self.read(address, 2 * layout.size as u64)?;
        let (start, length) = layout.two(&header).ok_or(ReadFailure::NotGo)?;
        self.text(start, length)
    }
}

/// Parses a binary's headers.
fn image(cache: &ReadCache<&mut File>) -> Result<Image, ReadFailure> {
    match FileKind::parse(cache)? {
        FileKind::Elf32 => elf::<elf::FileHeader32<Endianness>, _>(cache),
        FileKind::Elf64 => elf::<elf::FileHeader64<Endianness>, _>(cache),
        FileKind::Pe32 => pe::<pe::ImageNtHeaders32, _>(cache),
        FileKind::Pe64 => pe::<pe::ImageNtHeaders64, _>(cache),
        FileKind::MachO32 => macho::<macho::MachHeader32<Endianness>, _>(cache, 0),
        FileKind::MachO64 => macho::<macho::MachHeader64<Endianness>, _>(cache, 0),
        FileKind::MachOFat32 => {
            let first = MachOFatFile32::parse(cache)?.arches().first().map(|arch| arch.file_range());
            fat(cache, first)
        }
        FileKind::MachOFat64 => {
            let first = MachOFatFile64::parse(cache)?.arches().first().map(|arch| arch.file_range());
            fat(cache, first)
        }
        _ => Err(ReadFailure::UnknownFormat),
    }
}

/// ELF: the section `.go.buildinfo`, or the first segment that is writable and not executable.
fn elf<'a, H: FileHeader<Endian = Endianness>, R: ReadRef<'a>>(file: R) -> Result<Image, ReadFailure> {
    let header = H::parse(file)?;
    let endian = header.endian()?;
    let mut image = Image::default();
    for segment in header.program_headers(endian, file)? {
        image.regions.push(Region {
            address: segment.p_vaddr(endian).into(),
            offset: segment.p_offset(endian).into(),
            size: segment.p_filesz(endian).into(),
        });
        let (flags, kind) = (segment.p_flags(endian), segment.p_type(endian));
        if image.data.is_none() && kind == elf::PT_LOAD && flags.0 & (elf::PF_X | elf::PF_W).0 == elf::PF_W.0
        {
            image.data = Some((segment.p_vaddr(endian).into(), segment.p_memsz(endian).into()));
        }
    }
    let sections = header.sections(endian, file)?;
    let named = sections
        .iter()
        .take(MAX_SECTIONS)
        .find(|section| sections.section_name(endian, section).is_ok_and(|name| name == b".go.buildinfo"));
    if let Some(section) = named {
        image.data = Some((section.sh_addr(endian).into(), section.sh_size(endian).into()));
    }
    Ok(image)
}

/// PE: the first readable and writable section of initialized data.
fn pe<'a, H: ImageNtHeaders + 'a, R: ReadRef<'a>>(file: R) -> Result<Image, ReadFailure> {
    /// The alignment flag isn't part of a section's kind.
    const ALIGN_32_BYTES: u32 = 0x0060_0000;
    const DATA_READ_WRITE: u32 = 0x0000_0040 | 0x4000_0000 | 0x8000_0000;

    let mut offset = pe::ImageDosHeader::parse(file)?.nt_headers_offset().into();
    let (headers, _) = H::parse(file, &mut offset)?;
    let base = headers.optional_header().image_base();
    let mut image = Image::default();
    for section in headers.sections(file, offset)?.iter() {
        let address = base.wrapping_add(section.virtual_address.get(LittleEndian).into());
        let size = u64::from(section.size_of_raw_data.get(LittleEndian));
        image.regions.push(Region {
            address,
            offset: section.pointer_to_raw_data.get(LittleEndian).into(),
            size,
        });
        let kind = section.characteristics.get(LittleEndian).0 & !ALIGN_32_BYTES;
        if image.data.is_none()
            && section.virtual_address.get(LittleEndian) != 0
            && size != 0
            && kind == DATA_READ_WRITE
        {
            image.data = Some((address, section.virtual_size.get(LittleEndian).into()));
        }
    }
    Ok(image)
}

/// The first binary of a universal Mach-O file.
fn fat(cache: &ReadCache<&mut File>, range: Option<(u64, u64)>) -> Result<Image, ReadFailure> {
    let (offset, size) = range.ok_or(ReadFailure::UnknownFormat)?;
    let inner = cache.range(offset, size);
    match FileKind::parse(inner)? {
        FileKind::MachO32 => macho::<macho::MachHeader32<Endianness>, _>(inner, offset),
        FileKind::MachO64 => macho::<macho::MachHeader64<Endianness>, _>(inner, offset),
        _ => Err(ReadFailure::UnknownFormat),
    }
}

/// Mach-O: the section `__go_buildinfo`, or the first readable and writable segment.
fn macho<'a, H: MachHeader<Endian = Endianness>, R: ReadRef<'a>>(
    file: R,
    base: u64,
) -> Result<Image, ReadFailure> {
    let header = H::parse(file, 0)?;
    let endian = header.endian()?;
    let mut image = Image::default();
    let mut named = None;
    let mut commands = header.load_commands(endian, file, 0)?;
    while let Some(command) = commands.next()? {
        let Some((segment, sections)) = H::Segment::from_command(command)? else { continue };
        let (address, size) = (segment.vmaddr(endian).into(), segment.filesize(endian).into());
        if segment.name() != b"__PAGEZERO" {
            let offset =
                base.checked_add(segment.fileoff(endian).into()).ok_or(ReadFailure::UnknownFormat)?;
            image.regions.push(Region { address, offset, size });
        }
        let read_write = macho::VM_PROT_READ.0 | macho::VM_PROT_WRITE.0;
        let is_data = segment.maxprot(endian).0 == read_write && segment.initprot(endian).0 == read_write;
        if image.data.is_none() && address != 0 && size != 0 && is_data {
            image.data = Some((address, segment.vmsize(endian).into()));
        }
        let mut sections = segment.sections(endian, sections)?.iter();
        if named.is_none() {
            named = sections
                .find(|section| section.name() == b"__go_buildinfo")
                .map(|section| (section.addr(endian).into(), section.size(endian).into()));
        }
    }
    image.data = named.or(image.data);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), (usize, &'static str)>;

    #[test]
    fn every_kind_of_line() -> Outcome {
        let text = "path\texample.com/app\nmod\texample.com/app\t(devel)\t\ndep\ta\tv1.0.0\n=>\tb\tv2.0.0\th1:b=\n\
            dep\tc\tv1.1.0\th1:c=\nlater\tunknown\nbuild\t-tags=x,y\nbuild\t-ldflags=\"-X 'v=\\\"\\u00e9\\x21\\101\\\"'\"\n\
            build\tempty=\nbuild\t`a key`=`raw`\ndep\tcut\toff";
        let info = BuildInfo::parse(text)?;
        let replaced =
            BuildModule { path: "b".into(), version: "v2.0.0".into(), sum: "h1:b=".into(), replace: None };
        assert_eq!(info.main.version, "(devel)");
        assert_eq!(info.deps.len(), 2);
        assert_eq!(info.deps.first().and_then(|dep| dep.replace.clone()), Some(Box::new(replaced)));
        let settings: Vec<_> =
            info.settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            settings,
            [("-tags", "x,y"), ("-ldflags", "-X 'v=\"é!A\"'"), ("empty", ""), ("a key", "raw")]
        );
        Ok(())
    }

    #[test]
    fn malformed_lines_are_named() {
        for (text, line) in [
            ("dep\ta\n", 1),
            ("path\tp\n=>\ta\tv1\th1:\n", 2),
            ("mod\ta\tv1\n=>\ta\tv1\n", 2),
            ("build\tkey\n", 1),
            ("build\ta b=c\n", 1),
            ("build\ta=\"b\n", 1),
        ] {
            assert_eq!(BuildInfo::parse(text).map_err(|(line, _)| line), Err(line), "{text:?}");
        }
    }
}
