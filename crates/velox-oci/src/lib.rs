//! Container registries and images as the [OCI distribution specification](https://github.com/opencontainers/distribution-spec/blob/main/spec.md)
//! defines them.
//!
//! [`RegistryClient::repository`] opens the repository of an [`ImageReference`]; [`RegistryRepository`] pulls and
//! pushes manifests and blobs. What it returns is verified: content has the digest and the size
//! of its [`Descriptor`]. Requests that fail temporarily are repeated, transfers continue where they stopped, rate
//! limits are waited for, and credentials come from Docker's configuration ([`DockerCredentials`]). [`image`] makes
//! images and pushes them, or writes them to files.
//!
//! ```no_run
//! # async fn pull() -> Result<(), velox_oci::Error> {
//! use velox_oci::{ImageReference, RegistryClient, RegistryOptions};
//! let client = RegistryClient::new(RegistryOptions::default())?;
//! let reference: ImageReference = "ghcr.io/acme/app:1.4".parse()?;
//! let repository = client.repository(&reference);
//! let manifest = repository.pull_manifest(reference.version()).await?;
//! println!("{} {}", manifest.descriptor.digest, manifest.descriptor.media_type);
//! # Ok(())
//! # }
//! ```

mod authorization;
mod client;
mod credentials;
mod error;
pub mod image;
mod model;
mod pull;
mod push;
mod reference;
mod transport;

#[doc(hidden)]
pub use authorization::is_known_challenge;
pub use client::{OnRegistryEvent, RegistryClient, RegistryEvent, RegistryOptions, RegistryRepository};
pub use credentials::{CredentialError, DockerCredentials};
pub use error::{Error, RegistryAccess};
pub use model::{BlobContent, Descriptor, ImageIndex, ImageManifest, Platform, media_type};
pub use pull::PulledManifest;
pub use push::BlobPush;
pub use reference::{BlobDigest, ImageReference, InvalidReference};
