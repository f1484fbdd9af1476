//! Tests of the whole command line.

mod packaging;
mod reference;
