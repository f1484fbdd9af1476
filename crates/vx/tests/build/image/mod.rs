//! Container images: `vx build --image`, read by foreign tools.
#![cfg(target_os = "linux")]

mod debian_registry;
mod files;
mod invalid;
mod push;

use std::path::Path;

use serde_json::Value;
use velox_testkit::ModuleProxy;

use crate::support::sandbox::{CommandOutput, Sandbox, acme_proxy};

/// A machine that can build `hello`, without credentials.
fn machine() -> (ModuleProxy, Sandbox) {
    let proxy = acme_proxy();
    let sandbox = Sandbox::behind(&proxy).plugins("hello@v1.0.0").without("DOCKER_CONFIG");
    (proxy, sandbox)
}

/// `image` of the event `finished`.
fn built_image(output: &CommandOutput) -> Value {
    output.ok();
    let events = output.events();
    let finished = events.iter().find(|event| event["event"] == "finished");
    finished.unwrap_or_else(|| panic!("{}", output.stdout()))["image"].clone()
}

fn json(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(text.as_ref()));
    })
}

/// A blob of an OCI layout.
fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    std::fs::read(layout.join("blobs/sha256").join(digest)).unwrap()
}

/// The manifest and the configuration of the only image of an OCI layout.
fn image_in(layout: &Path) -> (Value, Value) {
    let index = json(std::fs::read(layout.join("index.json")).unwrap());
    let manifest = json(blob(layout, &index["manifests"][0]));
    let config = json(blob(layout, &manifest["config"]));
    (manifest, config)
}
