//! Checks of single values, for requests that aren't written as a configuration.

pub use crate::refs::{
    InvalidValue, full_version, majors_agree, module_path, reference, replaced, replacement,
};
