//! Go's table of functions, `runtime.pclntab`, which stripped binaries have, too
//! (<https://github.com/golang/go/blob/master/src/internal/abi/symtab.go>,
//! <https://github.com/golang/go/blob/master/src/runtime/symtab.go>: `pcHeader`).
//!
//! ```text
//! magic u32, 0, 0, quantum u8, pointer size u8                        the header
//! functions, files, text, names, units, files, pcs, table  8 words    offsets from the header
//! table: (code offset u32, function offset u32) × functions, end u32
//! function: code offset u32, name offset u32, …
//! ```

use object::{File, Object as _, ObjectSection as _, Section};

/// The magic since Go 1.20.
const MAGIC: u32 = 0xffff_fff1;
const MAX_FUNCTIONS: u64 = 1 << 24;

/// The section of the table; PE has it among other read-only data.
pub(super) fn section<'data, 'file>(file: &'file File<'data>) -> Option<Section<'data, 'file>> {
    let is_table = |section: &Section<'data, 'file>| {
        section
            .name()
            .is_ok_and(|name| matches!(name, ".gopclntab" | "__gopclntab" | ".data.rel.ro.gopclntab"))
    };
    file.sections().find(is_table)
}

/// The size of the table, and the functions with the bytes of their code.
pub(super) fn functions(file: &File<'_>) -> Option<(u64, Vec<(String, u64)>)> {
    let read =
        |section: Section<'_, '_>| section.data().ok().and_then(|data| find(data, file.is_little_endian()));
    match section(file) {
        Some(section) => {
            let size = section.file_range().map_or(0, |(_, size)| size);
            Some((size, read(section)?))
        }
        None => file.sections().find_map(|section| {
            let functions = read(section)?;
            // The end is not known without symbols.
            Some((0, functions))
        }),
    }
}

/// Finds the table in a section.
fn find(data: &[u8], is_little_endian: bool) -> Option<Vec<(String, u64)>> {
    let magic = if is_little_endian { MAGIC.to_le_bytes() } else { MAGIC.to_be_bytes() };
    let starts = data.windows(4).enumerate().step_by(4).filter(|(_, window)| *window == magic);
    starts.into_iter().find_map(|(start, _)| Table { data: data.get(start..)?, is_little_endian }.functions())
}

struct Table<'a> {
    data: &'a [u8],
    is_little_endian: bool,
}

impl Table<'_> {
    fn functions(&self) -> Option<Vec<(String, u64)>> {
        let [0, 0, 1 | 2 | 4, pointer @ (4 | 8)] = *self.data.get(4..8)? else { return None };
        let word = |index: u64| {
            let at = 8 + index * u64::from(pointer);
            if pointer == 8 { self.number::<8>(at) } else { self.number::<4>(at) }
        };
        let (count, names, table) = (word(0)?, word(3)?, word(7)?);
        if !(1..=MAX_FUNCTIONS).contains(&count) {
            return None;
        }
        let mut functions = Vec::new();
        for index in 0..count {
            let entry = table.checked_add(index * 8)?;
            let (start, function) = (self.number::<4>(entry)?, self.number::<4>(entry + 4)?);
            let end = self.number::<4>(entry + 8)?;
            let name = self.number::<4>(table.checked_add(function + 4)?)?;
            functions.push((self.text(names.checked_add(name)?)?, end.checked_sub(start)?));
        }
        Some(functions)
    }

    fn number<const BYTES: usize>(&self, at: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let bytes = self.data.get(at..at.checked_add(BYTES)?)?;
        let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_little_endian {
            true => bytes.iter().rev().fold(0, fold),
            false => bytes.iter().fold(0, fold),
        })
    }

    fn text(&self, at: u64) -> Option<String> {
        let rest = self.data.get(usize::try_from(at).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(rest.get(..end)?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with one function `f` of 16 bytes.
    fn table() -> Vec<u8> {
        let mut data = MAGIC.to_le_bytes().to_vec();
        data.extend([0, 0, 1, 8]);
        // The names follow the header, then the table.
        for word in [1_u64, 0, 0, 72, 0, 0, 0, 76] {
            data.extend(word.to_le_bytes());
        }
        data.extend(*b"f\0\0\0");
        for number in [0_u32, 12, 16, 0, 0] {
            data.extend(number.to_le_bytes());
        }
        data
    }

    #[test]
    fn functions_are_read_from_the_table() {
        let behind = [vec![0; 64], table()].concat();
        assert_eq!(find(&behind, true), Some(vec![("f".to_owned(), 16)]));
    }

    #[test]
    fn damaged_tables_are_none() {
        let table = table();
        for length in 0..table.len() {
            assert_eq!(find(&table[..length], true), None, "{length}");
        }
        for at in 8..table.len() {
            let mut damaged = table.clone();
            damaged[at] = 0xff;
            // No panic.
            let _ = find(&damaged, true);
        }
    }
}
