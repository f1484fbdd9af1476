//! The configuration of an image, merged with that of its base:
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{BlobDigest, Platform, model::null_is_default};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Identifiers of the base's own build.
const BUILD_KEYS: [&str; 6] =
    ["container", "container_config", "docker_version", "id", "parent", "moby.buildkit.buildinfo.v1"];

/// The properties of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// The creation time, RFC 3339 in UTC.
    pub created: String,
    /// The modification time of the files: seconds since 1970.
    pub file_time: u64,
    /// The absolute path of the binary in the image.
    pub binary_path: String,
    /// The command of a container. Empty: that of the base. `None`: the binary.
    pub entrypoint: Option<Vec<String>>,
    /// The user of a container; `None`: that of the base.
    pub user: Option<String>,
    /// The annotations of the manifests, and the labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// The compression of the new layers.
    pub compression: LayerCompression,
}

/// The compression of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LayerCompression {
    /// Every program reads it.
    #[default]
    Gzip,
    /// Smaller and faster; Docker 23, containerd 1.5, Podman 2 and later read it.
    Zstd,
}

/// A configuration. Unknown keys are kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImageConfigFile {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    config: RunConfig,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) rootfs: RootFileSystem,
    #[serde(default, deserialize_with = "null_is_default")]
    history: Vec<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RootFileSystem {
    #[serde(default, rename = "type", deserialize_with = "null_is_default")]
    kind: String,
    /// The digests of the uncompressed layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) diff_ids: Vec<BlobDigest>,
}

impl ImageConfigFile {
    /// The configuration with further layers, each with the command that made it.
    pub(crate) fn merged(
        mut self,
        settings: &ImageSettings,
        platform: &Platform,
        layers: &[(BlobDigest, String)],
    ) -> Self {
        self.other.retain(|key, _| !BUILD_KEYS.contains(&key.as_str()));
        self.created = Some(settings.created.clone());
        self.architecture.clone_from(&platform.architecture);
        self.os.clone_from(&platform.os);
        self.variant = platform.variant.clone().or(self.variant);
        let run = &mut self.config;
        run.other.remove("Image");
        let binary = std::slice::from_ref(&settings.binary_path);
        let entrypoint = settings.entrypoint.as_deref().unwrap_or(binary);
        if !entrypoint.is_empty() {
            // The arguments of the base's command are not for another one.
            run.other.remove("Cmd");
            run.other.insert("Entrypoint".to_owned(), json!(entrypoint));
        }
        if let Some(user) = &settings.user {
            run.other.insert("User".to_owned(), json!(user));
        }
        run.other.entry("Env").or_insert_with(|| json!([PATH]));
        run.labels.extend(settings.labels.clone());
        // A history must be complete.
        if !self.history.is_empty() || self.rootfs.diff_ids.is_empty() {
            self.history.extend(layers.iter().map(
                |(_, command)| json!({ "created": settings.created, "created_by": command, "comment": "vx" }),
            ));
        }
        "layers".clone_into(&mut self.rootfs.kind);
        self.rootfs.diff_ids.extend(layers.iter().map(|(diff_id, _)| diff_id.clone()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(settings: &ImageSettings, base: Value) -> Value {
        let platform = Platform::of_go("linux", "arm64", None);
        let base: ImageConfigFile = serde_json::from_value(base).unwrap();
        let layer = (BlobDigest::of(b"new"), "COPY rr".to_owned());
        serde_json::to_value(base.merged(settings, &platform, &[layer])).unwrap()
    }

    fn settings() -> ImageSettings {
        ImageSettings {
            created: "2026-01-02T03:04:05Z".to_owned(),
            binary_path: "/usr/bin/rr".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "new".to_owned())]),
            ..ImageSettings::default()
        }
    }

    #[test]
    fn the_base_is_kept_where_nothing_else_is_said() {
        let base = json!({
            "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2020-01-01T00:00:00Z", "container": "x",
            "config": { "Env": ["PHP_VERSION=8.4"], "Cmd": ["php", "-a"], "Entrypoint": ["docker-php-entrypoint"],
                "WorkingDir": "/app", "User": "www-data", "Labels": { "a": "old", "b": "old" } },
            "rootfs": { "type": "layers", "diff_ids": [BlobDigest::of(b"old")] },
            "history": [{ "created_by": "php" }],
        });
        let mut expected = base.clone();
        expected.as_object_mut().unwrap().remove("container");
        expected["created"] = json!("2026-01-02T03:04:05Z");
        expected["config"]["Labels"] = json!({ "a": "new", "b": "old" });
        expected["config"]["User"] = json!("rr");
        expected["rootfs"]["diff_ids"] = json!([BlobDigest::of(b"old"), BlobDigest::of(b"new")]);
        expected["history"] = json!([
            { "created_by": "php" },
            { "created": "2026-01-02T03:04:05Z", "created_by": "COPY rr", "comment": "vx" },
        ]);
        let kept = ImageSettings { entrypoint: Some(Vec::new()), user: Some("rr".to_owned()), ..settings() };
        assert_eq!(merged(&kept, base.clone()), expected);

        expected["config"]["User"] = json!("www-data");
        expected["config"]["Entrypoint"] = json!(["/usr/bin/rr"]);
        expected["config"].as_object_mut().unwrap().remove("Cmd");
        assert_eq!(merged(&settings(), base), expected);
    }

    #[test]
    fn scratch_and_odd_bases_are_completed() {
        for base in [json!({}), json!({ "config": null, "rootfs": { "diff_ids": null }, "history": null })] {
            let config = merged(&settings(), base);
            assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/rr"]));
            assert_eq!(config["rootfs"], json!({ "type": "layers", "diff_ids": [BlobDigest::of(b"new")] }));
            assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("arm64")));
            assert_eq!(config["history"].as_array().unwrap().len(), 1);
        }
    }
}
