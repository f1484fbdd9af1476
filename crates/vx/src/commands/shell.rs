//! Shell completions, man pages and the JSON Schema.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    cli::{Cli, completion},
    report,
    status::CommandResult,
};

/// `vx completions SHELL`.
pub(crate) fn completions(shell: Shell, with_descriptions: bool) -> CommandResult {
    let script = completion::script(shell, with_descriptions);
    let script = script.map_err(|error| report::complain(&format!("failed to write the script: {error}")))?;
    report::print(&String::from_utf8_lossy(&script))
}

/// `vx man [DIR]`.
pub(crate) fn man(directory: Option<&Path>) -> CommandResult {
    let command = built_command();
    let Some(directory) = directory else {
        let page = page(command);
        let page = page.map_err(|error| report::complain(&format!("failed to render the page: {error}")))?;
        return report::print(&String::from_utf8_lossy(&page));
    };
    let pages = write_pages(command, directory).map_err(|error| {
        report::complain(&format!("failed to write the pages to `{}`: {error}", directory.display()))
    })?;
    report::print(&pages.iter().map(|page| format!("{}\n", page.display())).collect::<String>())
}

pub(crate) fn schema() -> CommandResult {
    report::print(&velox_manifest::schema())
}

/// The command line with inherited arguments, and without clap's `help` subcommands.
fn built_command() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

/// Writes `vx.1`, `vx-build.1`, `vx-cache-prune.1` and so on.
fn write_pages(command: clap::Command, directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let mut pages = Vec::new();
    let mut open = vec![command];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let path = directory.join(format!("{name}.1"));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        io::Write::write_all(&mut file, &page(command)?)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        file.persist(&path).map_err(|error| error.error)?;
        pages.push(path);
    }
    pages.sort();
    Ok(pages)
}
