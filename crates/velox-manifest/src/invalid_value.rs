//! The reason why a value is invalid.

use std::fmt;

/// The reason why a value is invalid: a label and a help text.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidValue {
    pub(crate) why: String,
    pub(crate) help: Option<String>,
}

impl InvalidValue {
    /// Creates a reason without a help text.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.help {
            Some(help) => write!(f, "{}; {help}", self.why),
            None => f.write_str(&self.why),
        }
    }
}
