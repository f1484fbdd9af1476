//! Validation of single values, for API requests.

pub use crate::refs::{
    InvalidValue, full_version, majors_agree, module_path, reference, replaced, replacement,
};
