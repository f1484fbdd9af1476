//! The plugins in binaries of other tools, which don't record which modules are plugins.

use std::path::Path;

use velox_build::Error;

use crate::{Inspection, size::functions};

/// The method that each plugin has; RoadRunner finds it by reflection, so that the linker keeps it.
const PLUGIN_METHOD: &str = ".(*Plugin).Init";

impl Inspection {
    /// Finds plugins that the catalogue doesn't know in a binary of another tool: modules whose root package has a type
    /// `Plugin` with a method `Init`.
    ///
    /// # Errors
    /// The functions of the binary can't be read.
    pub fn find_plugins(&mut self, binary: &Path) -> Result<(), Error> {
        if self.by_vx {
            return Ok(());
        }
        let functions = functions(binary)?.0;
        let packages: Vec<&str> =
            functions.iter().filter_map(|(name, _)| name.strip_suffix(PLUGIN_METHOD)).collect();
        let (plugins, modules) = std::mem::take(&mut self.modules).into_iter().partition(|module| {
            // Names of symbols have no dots in the last element.
            let (parent, last) = module.module.rsplit_once('/').unwrap_or(("", &module.module));
            let package = format!("{parent}/{}", last.replace('.', "%2e"));
            packages.contains(&package.trim_start_matches('/'))
        });
        self.modules = modules;
        let plugins: Vec<crate::BinaryModule> = plugins;
        self.plugins.extend(plugins);
        self.plugins.sort();
        Ok(())
    }
}
