//! What belongs to the shell and the editor around vx: completions, man pages, the schema.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{cli::Cli, report};

/// `vx completions SHELL`.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "vx", &mut script);
    report::answer(&String::from_utf8_lossy(&script))
}

/// `vx man [DIR]`: the page of vx itself, or all of them into a directory.
pub(crate) fn man(directory: Option<&Path>) -> ExitCode {
    let command = built();
    let Some(directory) = directory else {
        return match page(command) {
            Ok(page) => report::answer(&String::from_utf8_lossy(&page)),
            Err(error) => report::complain(&format!("can't write the page: {error}")),
        };
    };
    match write_pages(command, directory) {
        Ok(pages) => {
            report::answer(&pages.iter().map(|page| format!("{}\n", page.display())).collect::<String>())
        }
        Err(error) => {
            report::complain(&format!("can't write the pages into {}: {error}", directory.display()))
        }
    }
}

/// `vx schema`.
pub(crate) fn schema() -> ExitCode {
    report::answer(&velox_manifest::schema())
}

/// Without the hidden commands, which clap's scripts would offer.
fn visible() -> clap::Command {
    let whole = Cli::command();
    clap::Command::new("vx")
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

/// With the arguments of every subcommand, and without the `help` that clap adds to each.
fn built() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

/// `vx.1`, `vx-build.1`, `vx-cache-prune.1`, …: one for each command that isn't hidden.
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
