//! Options before the command, where Velox accepts its own: `vx -c velox.toml build -o .`.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Error, error::ErrorKind, parser::ValueSource};

use super::CliCommand;
#[cfg(feature = "service")]
use super::service::ListenAddress;

/// The options of Velox, which belong to the command that follows.
#[derive(Debug, Default, Args)]
pub(super) struct LeadingArgs {
    #[arg(short, long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
    #[arg(short, long = "out", alias = "output-dir", value_name = "DIR", hide = true)]
    output_dir: Option<PathBuf>,
    #[cfg(feature = "service")]
    #[arg(short, long, value_name = "ADDRESS:PORT", hide = true)]
    address: Option<ListenAddress>,
}

impl LeadingArgs {
    /// Sets the options of the command, unless they are repeated after it.
    pub(super) fn pass_to(self, command: &mut CliCommand, matches: &ArgMatches) -> Result<(), Error> {
        let Some((name, own)) = matches.subcommand() else { return Ok(()) };
        pass("config", "--config", self.config, command.config(), name, own)?;
        if let (Some(_), CliCommand::Build(build)) = (&self.output_dir, &*command)
            && build.output_file.is_some()
        {
            let message = "the argument '--out <DIR>' cannot be used with '--output-file <FILE>'";
            return Err(Error::raw(ErrorKind::ArgumentConflict, message));
        }
        pass("output_dir", "--out", self.output_dir, command.output_dir(), name, own)?;
        #[cfg(feature = "service")]
        pass("address", "--address", self.address, command.address(), name, own)?;
        Ok(())
    }
}

/// Sets an option of the command `name`, whose own arguments `own` take precedence, but not its environment.
fn pass<T>(
    id: &str,
    option: &str,
    value: Option<T>,
    slot: Option<&mut Option<T>>,
    name: &str,
    own: &ArgMatches,
) -> Result<(), Error> {
    match (value, slot) {
        (None, _) => Ok(()),
        (Some(value), Some(slot)) => {
            if own.value_source(id) != Some(ValueSource::CommandLine) {
                *slot = Some(value);
            }
            Ok(())
        }
        (Some(_), None) => {
            let message = format!("unexpected argument '{option}' found: `vx {name}` has no such option");
            Err(Error::raw(ErrorKind::UnknownArgument, message))
        }
    }
}

impl CliCommand {
    fn config(&mut self) -> Option<&mut Option<PathBuf>> {
        Some(match self {
            Self::Build(command) => &mut command.project.source.config,
            Self::Run(command) => &mut command.source.config,
            Self::Lock(command) => &mut command.project.source.config,
            Self::Fetch(command) => &mut command.project.source.config,
            Self::Doctor(command) => &mut command.source.config,
            Self::List(command) => &mut command.project.source.config,
            Self::Why(command) => &mut command.project.source.config,
            Self::Tree(command) => &mut command.project.source.config,
            Self::Graph(command) => &mut command.project.source.config,
            Self::Check(command) => &mut command.project.source.config,
            Self::Audit(command) => &mut command.project.source.config,
            Self::Init(command) => &mut command.config.config,
            Self::Add(command) => &mut command.edit.config.config,
            Self::Remove(command) => &mut command.edit.config.config,
            Self::Update(command) => &mut command.edit.config.config,
            Self::Outdated(command) => &mut command.config.config,
            Self::Migrate(command) => &mut command.config.config,
            #[cfg(feature = "service")]
            Self::Server(command) if command.command.is_none() => &mut command.config,
            _ => return None,
        })
    }

    fn output_dir(&mut self) -> Option<&mut Option<PathBuf>> {
        match self {
            Self::Build(command) => Some(&mut command.output_dir),
            _ => None,
        }
    }

    #[cfg(feature = "service")]
    fn address(&mut self) -> Option<&mut Option<ListenAddress>> {
        match self {
            Self::Server(command) if command.command.is_none() => Some(&mut command.address),
            _ => None,
        }
    }
}
