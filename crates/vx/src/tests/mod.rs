//! Tests of the command line as a whole.

mod packaging;
mod reference;
