use velox_build::PublicCaches;

/// The public key that verifies the published caches, in PEM. The release workflow sets it when it compiles vx. Any other
/// vx suggests no cache: it can't know whether one was published.
const TRUSTED_KEY: Option<&str> = option_env!("VX_PUBLIC_CACHE_KEY");

/// The RoadRunner releases whose packages the release workflow publishes, one a line (`scripts/publish-caches`).
const RELEASES: &str = include_str!("published-releases.txt");

/// The caches that vx's release workflow publishes beside its image: `ghcr.io/OWNER/REPOSITORY/cache:RELEASE`.
pub(super) fn public_caches() -> Option<PublicCaches> {
    let trusted_key = TRUSTED_KEY.filter(|key| !key.is_empty())?.to_owned();
    let repository = env!("CARGO_PKG_REPOSITORY").strip_prefix("https://github.com/")?;
    Some(PublicCaches {
        repository: format!("ghcr.io/{repository}/cache"),
        trusted_key,
        releases: RELEASES.lines().map(str::to_owned).collect(),
    })
}
