use std::process::ExitCode;

use velox_build::ErrorKind;

use crate::signals::Signal;

/// The result of a command. Errors were already reported to the user.
pub(crate) type CommandResult<T = ()> = Result<T, ExitStatus>;

/// A non-zero exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// The build failed, or a check found errors.
    Failure,
    /// The command line or the configuration is invalid.
    Configuration,
    Interrupted(Signal),
}

impl ExitStatus {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Configuration => 2,
            Self::Interrupted(signal) => signal.exit_code(),
        }
    }

    /// The `kind` of the JSON event `failed`.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Failure => "build",
            Self::Configuration => "configuration",
            Self::Interrupted(_) => "interrupted",
        }
    }
}

impl From<ErrorKind> for ExitStatus {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Interrupted => Self::Interrupted(Signal::Interrupt),
            ErrorKind::Configuration => Self::Configuration,
            ErrorKind::Build => Self::Failure,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}
