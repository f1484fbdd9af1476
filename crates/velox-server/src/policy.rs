//! What may be asked for on this service.

use crate::{Caller, Spec, Violation};

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The modules that plugins and replacements may come from, as GOPRIVATE's patterns
    /// (<https://go.dev/ref/mod#private-modules>); empty: any.
    pub modules: Vec<String>,
    /// The modules that may be fetched from their own version control instead of the module proxy, as GOPRIVATE's patterns.
    pub direct: Vec<String>,
    /// Whether C code may be compiled; `race` needs it.
    pub cgo: bool,
}

/// Why a request isn't taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It can't be, here or elsewhere.
    Invalid(Vec<Violation>),
    /// It isn't allowed to this caller, or to anyone.
    Forbidden(Vec<Violation>),
    /// The service isn't set up for it.
    Precondition(Violation),
}

impl Policy {
    /// Whether the service takes this request of this caller.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn check(&self, spec: &Spec, _caller: &Caller) -> Result<(), Refusal> {
        if spec.race && !self.cgo {
            let message =
                "the race detector needs a C compiler, which this service doesn't allow (--allow-cgo)";
            return Err(Refusal::Precondition(Violation::new("race", message)));
        }
        Ok(())
    }
}
