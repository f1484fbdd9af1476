//! Commands that only read the configuration.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod graph;
pub(crate) mod inspect;
pub(crate) mod licenses;
pub(crate) mod list;
pub(crate) mod outdated;
pub(crate) mod sbom;
pub(crate) mod search;
pub(crate) mod size;
pub(crate) mod tree;
pub(crate) mod why;
