use std::process::ExitCode;

use velox_build::ErrorKind;

use crate::signals::Signal;

/// How a command ended without what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Build,
    Configuration,
    Interrupted(Signal),
}

impl Ending {
    /// The exit code, as a number.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Configuration => 2,
            Self::Interrupted(signal) => signal.exit_code(),
        }
    }

    /// The word for it in the JSON events.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Configuration => "configuration",
            Self::Interrupted(_) => "interrupted",
        }
    }

    /// What an error of the build is worth, when `signal` came meanwhile.
    pub(crate) fn of(kind: ErrorKind, signal: Option<Signal>) -> Self {
        match (kind, signal) {
            (_, Some(signal)) => Self::Interrupted(signal),
            (ErrorKind::Interrupted, None) => Self::Interrupted(Signal::Interrupt),
            (ErrorKind::Configuration, None) => Self::Configuration,
            (ErrorKind::Build, None) => Self::Build,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        ending.number().into()
    }
}
