//! Container images of a binary: a base, a layer with the binary, a layer for each added path, and a configuration.
//!
//! Nothing in an image depends on the time or the machine: equal inputs give equal digests.

mod archive;
mod assemble;
mod base;
mod config;
mod files;
mod layer;
mod layout;
mod publish;
mod source;

pub use archive::write_archive;
pub use assemble::{AssembledImage, ImageInput, ImageSet};
pub use base::{BaseImage, PlatformBase};
pub use config::{ImageSettings, LayerCompression};
pub use files::{ImageAddition, image_path};
pub use layout::{check_layout, write_layout};
pub use publish::{Referrer, push_image, push_referrers};
