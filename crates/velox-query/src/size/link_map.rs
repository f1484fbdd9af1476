use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use velox_build::{Error, LinkedBinary};

use super::{
    BinaryContents, STANDARD_LIBRARY,
    symbols::{self, package_of, unescaped},
};

/// The bytes of a binary by package, with the imports of the packages, and how the linker reached them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LinkMap {
    /// The size of the binary.
    pub(super) total: u64,
    pub(super) contents: BinaryContents,
    packages: Vec<LinkedPackage>,
    /// The index of the main package.
    main: usize,
    /// Parents come before their children.
    regions: Vec<SymbolRange>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LinkedPackage {
    path: String,
    module: String,
    /// Indices of packages.
    imports: Vec<usize>,
}

/// Symbols of one package that the linker reached from each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SymbolRange {
    /// An index of a package.
    package: usize,
    /// The region from which the linker reached this one; `None`: from the start.
    parent: Option<usize>,
    bytes: u64,
}

/// A package in the output of `go list -json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PackageListing {
    import_path: String,
    #[serde(default)]
    imports: Vec<String>,
    /// Vendored packages of the standard library.
    #[serde(default)]
    import_map: BTreeMap<String, String>,
    module: Option<ModuleListing>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ModuleListing {
    path: String,
}

/// Reads a binary that was linked with all its symbols, as JSON.
pub(super) fn read(binary: &LinkedBinary) -> Result<String, Error> {
    let (symbols, contents) = symbols::read(&binary.path, binary.is_stripped)?;
    let packages = packages(&binary.packages)?;
    let Some(main) = packages.len().checked_sub(1) else {
        return Err(Error::build("internal error: `go list` printed no packages"));
    };
    let mut reach = Reachability::new(&packages, main);
    for line in &binary.reached {
        reach.add(line);
    }
    let map = reach.map(packages.clone(), main, &symbols, contents);
    serde_json::to_string(&map)
        .map_err(|error| Error::build(format!("internal error: failed to write the sizes: {error}")))
}

/// The packages of `go list -deps -json`: dependencies first, the main package last.
fn packages(listing: &str) -> Result<Vec<LinkedPackage>, Error> {
    let listed: Vec<PackageListing> =
        serde_json::Deserializer::from_str(listing).into_iter().collect::<Result<_, _>>().map_err(
            |error| Error::build(format!("internal error: failed to parse the output of `go list`: {error}")),
        )?;
    let indices: HashMap<&str, usize> =
        listed.iter().enumerate().map(|(index, package)| (package.import_path.as_str(), index)).collect();
    let linked = |package: &PackageListing| {
        let imports = package.imports.iter().map(|path| package.import_map.get(path).unwrap_or(path));
        LinkedPackage {
            path: package.import_path.clone(),
            module: package.module.as_ref().map_or(STANDARD_LIBRARY, |module| &module.path).to_owned(),
            imports: imports.filter_map(|path| indices.get(path.as_str()).copied()).collect(),
        }
    };
    Ok(listed.iter().map(linked).collect())
}

/// The linker's way through the symbols.
struct Reachability<'a> {
    /// By import path, and the main package by `main`.
    packages: HashMap<&'a str, usize>,
    main: usize,
    regions: Vec<(usize, Option<usize>)>,
    children: HashMap<(Option<usize>, usize), usize>,
    /// The region of each symbol.
    of_symbol: HashMap<&'a str, usize>,
    /// The estimated bytes of types and strings of each region: the linker merges these symbols.
    weights: Vec<u64>,
}

impl<'a> Reachability<'a> {
    fn new(packages: &'a [LinkedPackage], main: usize) -> Self {
        let paths = packages.iter().enumerate().map(|(index, package)| (package.path.as_str(), index));
        Self {
            packages: paths.chain([("main", main)]).collect(),
            main,
            regions: Vec::new(),
            children: HashMap::new(),
            of_symbol: HashMap::new(),
            weights: Vec::new(),
        }
    }

    /// Adds a line of `-dumpdep`.
    fn add(&mut self, line: &'a str) {
        let Some((parent, symbol)) = line.split_once(" -> ") else { return };
        let (parent, symbol) = (without_flags(parent), without_flags(symbol));
        if self.of_symbol.contains_key(symbol) {
            return;
        }
        let parent = self.of_symbol.get(parent).copied();
        let of_parent = parent.and_then(|parent| self.regions.get(parent)).map(|(package, _)| *package);
        let package = self.package(symbol).or(of_parent).unwrap_or(self.main);
        let region = match parent {
            Some(parent) if of_parent == Some(package) => parent,
            _ => self.region(parent, package),
        };
        self.of_symbol.insert(symbol, region);
        if let Some(weight) = self.weights.get_mut(region) {
            *weight += estimated_bytes(symbol);
        }
    }

    fn region(&mut self, parent: Option<usize>, package: usize) -> usize {
        let (regions, weights) = (&mut self.regions, &mut self.weights);
        *self.children.entry((parent, package)).or_insert_with(|| {
            regions.push((package, parent));
            weights.push(0);
            regions.len() - 1
        })
    }

    /// The package of a symbol by its name alone.
    fn package(&self, symbol: &str) -> Option<usize> {
        let name = match symbol.strip_prefix("type:") {
            Some(named) if !named.contains(['[', '(', '{', ' ']) => named.trim_start_matches('*'),
            _ => symbol,
        };
        let package = package_of(name)?;
        self.packages.get(package).or_else(|| self.packages.get(unescaped(package).as_str())).copied()
    }

    fn map(
        mut self,
        packages: Vec<LinkedPackage>,
        main: usize,
        symbols: &[symbols::Symbol],
        contents: BinaryContents,
    ) -> LinkMap {
        let mut sizes: Vec<[u64; 2]> = vec![[0; 2]; self.regions.len()];
        for symbol in symbols {
            let name = symbol.name.as_str();
            let reached =
                self.of_symbol.get(name).or_else(|| self.of_symbol.get(name.strip_suffix(".abi0")?));
            let region = match reached {
                Some(region) => *region,
                None => match self.package(name) {
                    Some(package) => self.region(None, package),
                    None => continue,
                },
            };
            sizes.resize(self.regions.len(), [0; 2]);
            if let Some([code, data]) = sizes.get_mut(region) {
                *(if symbol.is_code { code } else { data }) += symbol.bytes;
            }
        }
        let code: u64 = sizes.iter().map(|[code, _]| code).sum();
        let weights: u64 = self.weights.iter().sum();
        let part = |whole: u64, part: u64, of: u64| {
            u64::try_from(u128::from(whole) * u128::from(part) / u128::from(of.max(1))).unwrap_or_default()
        };
        let regions = self.regions.iter().zip(&self.weights).zip(&sizes);
        let regions: Vec<SymbolRange> = regions
            .map(|(((package, parent), weight), [in_code, data])| {
                let tables = part(contents.line_tables, *in_code, code);
                let types = part(contents.types_and_strings, *weight, weights);
                SymbolRange { package: *package, parent: *parent, bytes: in_code + data + tables + types }
            })
            .collect();
        LinkMap { total: contents.total(), contents, packages, main, regions }
    }
}

fn without_flags(symbol: &str) -> &str {
    let flags = [" <UsedInIface><ReflectMethod>", " <UsedInIface>", " <ReflectMethod>"];
    flags.iter().find_map(|flags| symbol.strip_suffix(flags)).unwrap_or(symbol)
}

/// About how many bytes of a merged section a symbol has.
fn estimated_bytes(symbol: &str) -> u64 {
    // The mean of types with their fields and methods, and of method tables.
    const TYPE: u64 = 110;
    const METHOD_TABLE: u64 = 50;
    let length = |text: &str| text.len() as u64;
    if let Some(text) = symbol.strip_prefix("go:string.") {
        // A long string has its length and a hash in its name.
        let long = text.strip_prefix(".gostring.").and_then(|name| name.split('.').next()?.parse().ok());
        long.unwrap_or_else(|| length(text.trim_matches('"')))
    } else if let Some(name) = symbol.strip_prefix("type:.namedata.") {
        length(name) + 2
    } else if symbol.starts_with("type:.") {
        0
    } else if symbol.starts_with("type:") {
        TYPE
    } else if symbol.starts_with("go:itab.") {
        METHOD_TABLE
    } else {
        0
    }
}

impl LinkMap {
    /// The index of a package.
    pub(super) fn package(&self, path: &str) -> Option<usize> {
        self.packages.iter().position(|package| package.path == path)
    }

    pub(super) fn path(&self, package: usize) -> &str {
        self.packages.get(package).map_or("", |package| &package.path)
    }

    pub(super) fn module(&self, package: usize) -> &str {
        self.packages.get(package).map_or("", |package| &package.module)
    }

    /// The bytes of each package.
    pub(super) fn package_bytes(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.packages.len()];
        for region in &self.regions {
            if let Some(sum) = bytes.get_mut(region.package) {
                *sum += region.bytes;
            }
        }
        bytes
    }

    /// For each package whether the main package imports it, directly or indirectly, if the package `container` doesn't
    /// import `removed`.
    pub(super) fn reached(&self, container: &str, removed: &[usize]) -> Vec<bool> {
        let container = self.package(container);
        self.reached_from(self.main, &|from, to| Some(from) == container && removed.contains(&to))
    }

    /// For each package whether `package` imports it, directly or indirectly.
    pub(super) fn imported_by(&self, package: usize) -> Vec<bool> {
        self.reached_from(package, &|_, _| false)
    }

    fn reached_from(&self, start: usize, is_removed: &dyn Fn(usize, usize) -> bool) -> Vec<bool> {
        let mut reached = vec![false; self.packages.len()];
        let mut open = vec![start];
        while let Some(package) = open.pop() {
            match reached.get_mut(package) {
                Some(known) if !*known => *known = true,
                _ => continue,
            }
            let imports = self.packages.get(package).map_or(&[][..], |package| &package.imports);
            open.extend(imports.iter().filter(|import| !is_removed(package, **import)));
        }
        reached
    }

    /// The bytes of the packages that are not `kept`, and the bytes of other packages that the linker reached through
    /// those first: it may reach them in another way, too.
    pub(super) fn bytes_without(&self, kept: &[bool]) -> (u64, u64) {
        let (mut certain, mut possible) = (0, 0);
        let mut below: HashSet<usize> = HashSet::new();
        for (index, region) in self.regions.iter().enumerate() {
            let is_kept = kept.get(region.package).copied().unwrap_or_default();
            if !is_kept {
                certain += region.bytes;
                below.insert(index);
            } else if region.parent.is_some_and(|parent| below.contains(&parent)) {
                possible += region.bytes;
                below.insert(index);
            }
        }
        (certain, possible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `main` imports `container`, which imports the plugins `a` and `b`; both import `lib`.
    fn listing() -> &'static str {
        r#"
        {"ImportPath": "lib", "Module": {"Path": "lib"}}
        {"ImportPath": "a", "Imports": ["lib"], "Module": {"Path": "a"}}
        {"ImportPath": "b.v1", "Imports": ["lib"], "Module": {"Path": "b.v1"}}
        {"ImportPath": "rr/container", "Imports": ["a", "b.v1"], "Module": {"Path": "rr"}}
        {"ImportPath": "rr/cmd/rr", "Imports": ["rr/container"], "Module": {"Path": "rr"}}"#
    }

    fn map(reached: &[&str], code: &[(&str, u64)]) -> LinkMap {
        let packages = packages(listing()).unwrap();
        let mut reach = Reachability::new(&packages, packages.len() - 1);
        reached.iter().for_each(|line| reach.add(line));
        let symbol = |(name, bytes): &(&str, u64)| symbols::Symbol {
            name: (*name).to_owned(),
            bytes: *bytes,
            is_code: true,
        };
        let symbols: Vec<_> = code.iter().map(symbol).collect();
        let contents = BinaryContents { code: 1000, ..BinaryContents::default() };
        reach.map(packages.clone(), packages.len() - 1, &symbols, contents)
    }

    #[test]
    fn packages_that_only_a_plugin_imports_go_with_it_and_what_it_reached_may() {
        let reached = [
            "_ -> main.main",
            "main.main -> rr/container.Plugins",
            "rr/container.Plugins -> type:*a.Plugin <UsedInIface>",
            "rr/container.Plugins -> b%2ev1.New",
            "type:*a.Plugin <UsedInIface> -> a.(*Plugin).Init",
            "a.(*Plugin).Init -> lib.Do",
            "lib.Do -> lib.Help",
        ];
        let code = [
            ("main.main", 1),
            ("a.(*Plugin).Init", 10),
            ("lib.Do", 100),
            ("lib.Help", 200),
            ("b%2ev1.New", 5),
        ];
        let map = map(&reached, &code);
        assert_eq!(map.package_bytes(), [300, 10, 5, 0, 1]);

        let without = |path: &str| {
            let kept = map.reached("rr/container", map.package(path).as_slice());
            map.bytes_without(&kept)
        };
        assert_eq!(without("a"), (10, 300));
        assert_eq!(without("b.v1"), (5, 0));
        let removed = [map.package("a").unwrap(), map.package("b.v1").unwrap()];
        assert_eq!(map.bytes_without(&map.reached("rr/container", &removed)), (315, 0));
    }

    #[test]
    fn strings_and_types_belong_to_the_package_that_reached_them() {
        let reached =
            ["_ -> a.F", "a.F -> go:string.\"12345678\"", "a.F -> type:[]lib.T", "a.F -> type:lib.T"];
        let packages = packages(listing()).unwrap();
        let mut reach = Reachability::new(&packages, packages.len() - 1);
        reached.iter().for_each(|line| reach.add(line));
        let contents = BinaryContents { types_and_strings: 2 * (8 + 110 + 110), ..BinaryContents::default() };
        let map = reach.map(packages.clone(), packages.len() - 1, &[], contents);
        assert_eq!(map.package_bytes(), [220, 236, 0, 0, 0]);
    }
}
