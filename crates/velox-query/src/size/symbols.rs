//! The symbols of a Go binary and their sizes, for ELF, Mach-O and PE.

use std::{collections::HashMap, fs, path::Path};

use object::{BinaryFormat, File, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};
use velox_build::Error;

use super::{BinaryContents, line_table};

/// A symbol with bytes in the file.
pub(super) struct Symbol {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) is_code: bool,
}

/// The first and last symbol of Go's tables about functions.
const LINE_TABLES: [&str; 2] = ["runtime.pclntab", "runtime.epclntab"];

/// Symbols of the linker that mark a place, or stand for many symbols that the linker merged.
const MARKERS: [&str; 14] = [
    "runtime.text",
    "runtime.etext",
    "runtime.rodata",
    "runtime.erodata",
    "runtime.types",
    "runtime.etypes",
    "runtime.noptrdata",
    "runtime.enoptrdata",
    "runtime.data",
    "runtime.edata",
    "runtime.gcbits.*",
    "runtime.typelink",
    "runtime.itablink",
    "runtime.findfunctab",
];

/// A section that is loaded from the file.
struct LoadedSection {
    is_code: bool,
    start: u64,
    end: u64,
    /// Address, size (0 outside of ELF) and name of its symbols.
    symbols: Vec<(u64, u64, String)>,
}

/// Reads the symbols of a binary. `is_stripped`: the size is that of the same binary without symbols.
pub(super) fn read(path: &Path, is_stripped: bool) -> Result<(Vec<Symbol>, BinaryContents), Error> {
    let data = read_file(path)?;
    let file = parse(path, &data)?;
    let mut contents = BinaryContents::default();
    let mut sections: HashMap<usize, LoadedSection> = loaded(&file);
    let mut marks = [None; 2];
    for symbol in file.symbols().filter(object::ObjectSymbol::is_definition) {
        let (Ok(name), Some(index)) = (symbol.name(), symbol.section_index()) else { continue };
        if let Some(at) = LINE_TABLES.iter().position(|mark| *mark == name) {
            marks[at] = Some(symbol.address());
        }
        if let Some(section) = sections.get_mut(&index.0)
            && (section.start..section.end).contains(&symbol.address())
        {
            section.symbols.push((symbol.address(), symbol.size(), name.to_owned()));
        }
    }
    let tables = match marks {
        [Some(start), Some(end)] if start <= end => start..end,
        _ => line_table::section(&file)
            .map_or(0..0, |section| section.address()..section.address() + section.size()),
    };
    let is_elf = file.format() == BinaryFormat::Elf;
    let mut symbols = Vec::new();
    for section in sections.into_values() {
        let LoadedSection { is_code, start, end, symbols: mut found } = section;
        found.sort_by_key(|(address, ..)| *address);
        let mut in_symbols = 0;
        for index in 0..found.len() {
            let Some((address, size, name)) = found.get(index) else { continue };
            let next = found.get(index + 1).map_or(end, |(next, ..)| *next);
            let bytes = if is_elf { (*size).min(end - address) } else { next - address };
            if bytes == 0 || tables.contains(address) || is_generated(name, is_code) {
                continue;
            }
            in_symbols += bytes;
            symbols.push(Symbol { name: name.clone(), bytes, is_code });
        }
        let in_tables = tables.end.min(end).saturating_sub(tables.start.max(start));
        contents.line_tables += in_tables;
        let rest = (end - start).saturating_sub(in_tables + in_symbols);
        if is_code {
            contents.code += in_symbols + rest;
        } else {
            contents.data += in_symbols;
            contents.types_and_strings += rest;
        }
    }
    let removed = if is_stripped { symbol_bytes(&file) } else { 0 };
    let total = (data.len() as u64).saturating_sub(removed);
    let BinaryContents { code, line_tables, types_and_strings, data, .. } = contents;
    contents.other = total.saturating_sub(code + line_tables + types_and_strings + data);
    Ok((symbols, contents))
}

/// The functions of a binary, with the bytes of their code: they are known without symbols, too.
pub(crate) fn functions(path: &Path) -> Result<(Vec<(String, u64)>, BinaryContents), Error> {
    let data = read_file(path)?;
    let file = parse(path, &data)?;
    let Some((table, functions)) = line_table::functions(&file) else {
        return Err(Error::build(format!("failed to read the functions of {}", path.display()))
            .help("this vx reads binaries of Go 1.20 and later"));
    };
    let mut contents = BinaryContents { line_tables: table, ..BinaryContents::default() };
    for section in loaded(&file).into_values() {
        let bytes = section.end - section.start;
        if section.is_code { contents.code += bytes } else { contents.data += bytes }
    }
    contents.data = contents.data.saturating_sub(table);
    contents.other = (data.len() as u64).saturating_sub(contents.code + contents.data + table);
    Ok((functions, contents))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::file("read", path, &error))
}

fn parse<'a>(path: &Path, data: &'a [u8]) -> Result<File<'a>, Error> {
    File::parse(data).map_err(|error| Error::build(format!("failed to read `{}`: {error}", path.display())))
}

/// The sections that are loaded from the file, by index.
fn loaded(file: &File<'_>) -> HashMap<usize, LoadedSection> {
    let is_loaded = |kind: SectionKind| {
        !matches!(
            kind,
            SectionKind::Debug
                | SectionKind::DebugString
                | SectionKind::Metadata
                | SectionKind::Note
                | SectionKind::UninitializedData
                | SectionKind::UninitializedTls
        )
    };
    let section = |section: object::Section<'_, '_>| {
        let (_, in_file) = section.file_range()?;
        let start = section.address();
        // A section of Windows may be longer in memory.
        let bytes = in_file.min(section.size());
        // Debug sections of Go on Windows have ordinary flags.
        let is_debug = section.name().is_ok_and(|name| name.contains("debug"));
        let is_counted = start > 0 && bytes > 0 && is_loaded(section.kind()) && !is_debug;
        is_counted.then(|| {
            let is_code = section.kind() == SectionKind::Text;
            let end = start.saturating_add(bytes);
            (section.index().0, LoadedSection { is_code, start, end, symbols: Vec::new() })
        })
    };
    file.sections().filter_map(section).collect()
}

/// Whether a symbol is no variable or function of a package, but was made by the linker.
fn is_generated(name: &str, is_code: bool) -> bool {
    let is_marker = MARKERS.contains(&name) || LINE_TABLES.contains(&name) || name.starts_with("go:");
    // The compiler makes functions that compare values of a type.
    is_marker || (!is_code && name.starts_with("type:"))
}

/// About how many bytes of the file `-s -w` leaves out.
fn symbol_bytes(file: &File<'_>) -> u64 {
    let mut bytes = 0;
    for section in file.sections() {
        let is_symbols = section.name().is_ok_and(|name| matches!(name, ".symtab" | ".strtab"));
        if is_symbols || matches!(section.kind(), SectionKind::Debug | SectionKind::DebugString) {
            bytes += section.file_range().map_or(0, |(_, size)| size);
        }
    }
    let entry = match file.format() {
        BinaryFormat::MachO => 16,
        BinaryFormat::Coff | BinaryFormat::Pe => 18,
        // Its symbols are in sections.
        _ => return bytes,
    };
    let names = file.symbols().filter_map(|symbol| symbol.name().ok().map(|name| name.len() as u64 + 1));
    bytes + names.map(|name| name + entry).sum::<u64>()
}

/// The package of a symbol as the linker writes it (`gopkg.in/yaml%2ev3`); `None` for one that belongs to none, and for
/// an instance of a generic function, which belongs to the package that uses it.
pub(super) fn package_of(name: &str) -> Option<&str> {
    if ["type:", "go:", "gclocals"].iter().any(|start| name.starts_with(start)) || name.contains('[') {
        return None;
    }
    let path = name.split('(').next().unwrap_or(name);
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path.get(last..)?.find('.')?;
    path.get(..last + dot)
}

/// The import path of a package as the linker writes it: the last element has `%2e` in place of a dot
/// (`objabi.PathToPrefix` of cmd/internal).
pub(super) fn unescaped(package: &str) -> String {
    package.replace("%2e", ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_a_symbol_is_before_the_first_dot_of_the_last_element() {
        for (symbol, package) in [
            ("fmt.Println", Some("fmt")),
            ("go.temporal.io/sdk/internal.(*Worker).Start.func1", Some("go.temporal.io/sdk/internal")),
            ("gopkg.in/yaml%2ev3.Unmarshal", Some("gopkg.in/yaml%2ev3")),
            ("github.com/a/b.(*T).m-fm", Some("github.com/a/b")),
            ("slices.SortFunc[go.shape.[]github.com/a/b.T]", None),
            ("type:*github.com/a/b.T", None),
            ("go:string.\"a.b\"", None),
            ("memeqbody", None),
        ] {
            assert_eq!(package_of(symbol), package, "{symbol}");
        }
        assert_eq!(unescaped("gopkg.in/yaml%2ev3"), "gopkg.in/yaml.v3");
    }
}
