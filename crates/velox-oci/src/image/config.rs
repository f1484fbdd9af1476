//! The configuration of an image, merged with that of its base:
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{BlobDigest, Error, Platform};

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
}

/// A layer in the history of an image.
pub(crate) struct HistoryLayer {
    pub(crate) diff_id: BlobDigest,
    pub(crate) created_by: String,
}

impl ImageSettings {
    /// The configuration as JSON. `base` is the configuration of the base.
    pub(crate) fn merged(
        &self,
        base: Option<&Value>,
        platform: &Platform,
        layers: &[HistoryLayer],
    ) -> Result<Vec<u8>, Error> {
        let mut config = match base {
            Some(Value::Object(config)) => config.clone(),
            _ => Map::new(),
        };
        // Identifiers of the base's own build.
        for key in
            ["container", "container_config", "docker_version", "id", "parent", "moby.buildkit.buildinfo.v1"]
        {
            config.remove(key);
        }
        config.insert("created".to_owned(), json!(self.created));
        config.insert("architecture".to_owned(), json!(platform.architecture));
        config.insert("os".to_owned(), json!(platform.os));
        if let Some(variant) = &platform.variant {
            config.insert("variant".to_owned(), json!(variant));
        }
        let run = object(&mut config, "config");
        run.remove("Image");
        match self.entrypoint.as_deref() {
            Some([]) => {}
            Some(words) => set_entrypoint(run, words),
            None => set_entrypoint(run, std::slice::from_ref(&self.binary_path)),
        }
        if let Some(user) = &self.user {
            run.insert("User".to_owned(), json!(user));
        }
        run.entry("Env")
            .or_insert_with(|| json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]));
        if !self.labels.is_empty() {
            let labels = object(run, "Labels");
            labels.extend(self.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        }
        let rootfs = object(&mut config, "rootfs");
        rootfs.insert("type".to_owned(), json!("layers"));
        let diff_ids = array(rootfs, "diff_ids");
        let had_layers = !diff_ids.is_empty();
        diff_ids.extend(layers.iter().map(|layer| json!(layer.diff_id)));
        // A history must be complete.
        let has_history = config.get("history").and_then(Value::as_array).is_some_and(|it| !it.is_empty());
        if has_history || !had_layers {
            array(&mut config, "history").extend(layers.iter().map(
                |layer| json!({ "created": self.created, "created_by": layer.created_by, "comment": "vx" }),
            ));
        }
        serde_json::to_vec(&config)
            .map_err(|error| Error::InvalidImage { name: "the image".to_owned(), reason: error.to_string() })
    }
}

/// The arguments of the base's command are not for another one.
fn set_entrypoint(run: &mut Map<String, Value>, words: &[String]) {
    run.remove("Cmd");
    run.insert("Entrypoint".to_owned(), json!(words));
}

/// The object at a key, which replaces `null`.
fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("an object was just inserted"),
    }
}

fn array<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = parent.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(array) => array,
        _ => unreachable!("an array was just inserted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(settings: &ImageSettings, base: Option<&Value>) -> Value {
        let platform = Platform {
            architecture: "arm64".to_owned(),
            os: "linux".to_owned(),
            variant: None,
            os_version: None,
        };
        let layer = HistoryLayer { diff_id: BlobDigest::of(b"new"), created_by: "COPY rr".to_owned() };
        serde_json::from_slice(&settings.merged(base, &platform, &[layer]).unwrap()).unwrap()
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
            "architecture": "arm64", "os": "linux", "created": "2020-01-01T00:00:00Z", "container": "x",
            "config": { "Env": ["PHP_VERSION=8.4"], "Cmd": ["php", "-a"], "Entrypoint": ["docker-php-entrypoint"],
                "WorkingDir": "/app", "User": "www-data", "Labels": { "a": "old", "b": "old" } },
            "rootfs": { "type": "layers", "diff_ids": [BlobDigest::of(b"old")] },
            "history": [{ "created_by": "php" }],
        });
        let config = merged(&settings(), Some(&base));
        let run = &config["config"];
        assert_eq!(run["Entrypoint"], json!(["/usr/bin/rr"]));
        assert_eq!(run["Cmd"], Value::Null);
        assert_eq!((&run["WorkingDir"], &run["User"]), (&json!("/app"), &json!("www-data")));
        assert_eq!(run["Env"], json!(["PHP_VERSION=8.4"]));
        assert_eq!(run["Labels"], json!({ "a": "new", "b": "old" }));
        assert_eq!(config["rootfs"]["diff_ids"], json!([BlobDigest::of(b"old"), BlobDigest::of(b"new")]));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&config["created"], &config["container"]),
            (&json!("2026-01-02T03:04:05Z"), &Value::Null)
        );

        let kept = ImageSettings { entrypoint: Some(Vec::new()), user: Some("rr".to_owned()), ..settings() };
        let config = merged(&kept, Some(&base));
        assert_eq!(config["config"]["Entrypoint"], json!(["docker-php-entrypoint"]));
        assert_eq!(
            (&config["config"]["Cmd"], &config["config"]["User"]),
            (&json!(["php", "-a"]), &json!("rr"))
        );
    }

    #[test]
    fn scratch_and_odd_bases_are_completed() {
        for base in [None, Some(json!({ "config": null, "rootfs": { "diff_ids": null }, "history": null }))] {
            let config = merged(&settings(), base.as_ref());
            assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/rr"]));
            assert_eq!(config["rootfs"], json!({ "type": "layers", "diff_ids": [BlobDigest::of(b"new")] }));
            assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!("arm64")));
            assert_eq!(config["history"].as_array().unwrap().len(), 1);
        }
    }
}
