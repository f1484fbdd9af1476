//! The bill of materials of a binary, and the licenses in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;
use velox_gomod::buildinfo::BuildInfo;
use velox_testkit::{ModuleProxy, plugin};

use crate::support::{
    sandbox::{CommandOutput, RELEASE, Sandbox, assert_contains, module_tree},
    validators,
};

const MIT: &str = include_str!("../../../velox-build/src/licenses/texts/MIT");
const GPL: &str = include_str!("../../../velox-build/src/licenses/texts/GPL-3.0");
const COMMIT: &str = "8a4b5d6e7f00112233445566778899aabbccddee";

/// A plugin under MIT, whose library is under GPL-3.0, and one under a license of its own.
fn proxy() -> ModuleProxy {
    let proxy = ModuleProxy::start();
    proxy.roadrunner(RELEASE);
    let licensed = |mut files: velox_testkit::Files, texts: &[(&str, &str)]| {
        for (name, text) in texts {
            files.insert((*name).to_owned(), text.as_bytes().to_vec());
        }
        files
    };
    let (lib, hello, bye) = ("example.com/acme/lib", "github.com/acme/hello", "example.com/acme/bye");
    let files = plugin(lib, "lib").files();
    proxy.module(lib, "v1.0.0", licensed(files, &[("COPYING", GPL)]));
    let files = plugin(hello, "hello").imports(lib, "v1.0.0").files();
    let notice = "Copyright 2026 The authors of hello";
    proxy.module(hello, "v1.0.0", licensed(files, &[("LICENSE.md", MIT), ("NOTICE", notice)]));
    let own = "You may use this on weekdays if you pay ten coins to each of the authors. ".repeat(20);
    proxy.module(bye, "v1.0.0", licensed(plugin(bye, "bye").files(), &[("LICENSE", &own)]));
    let info = format!(
        r#"{{"Version":"v1.0.0","Time":"2026-01-02T03:04:05Z","Origin":{{"VCS":"git","URL":"https://me:secret@git.acme.dev/bye","Hash":"{COMMIT}"}}}}"#
    );
    proxy.serve("/example.com/acme/bye/@v/v1.0.0.info", info);
    proxy
}

fn machine(proxy: &ModuleProxy) -> Sandbox {
    let table = |name: &str, module: &str| {
        format!("\n[plugins.{name}]\nmodule_name = \"{module}\"\ntag = \"v1.0.0\"\n")
    };
    let (hello, bye) = (table("hello", "github.com/acme/hello"), table("bye", "example.com/acme/bye"));
    Sandbox::behind(proxy).file("velox.toml", format!("[roadrunner]\nref = \"{RELEASE}\"\n{hello}{bye}"))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Modules and versions in the build information of a binary, with what is compiled in place of replaced ones.
fn compiled(binary: &Path) -> BTreeSet<(String, String)> {
    let info = BuildInfo::read(binary).unwrap();
    let compiled = |module: velox_gomod::buildinfo::BuildModule| match module.replace {
        Some(new) if !new.version.is_empty() && new.version != "(devel)" => (new.path, new.version),
        Some(_) => (module.path, "(devel)".to_owned()),
        None => (module.path, module.version),
    };
    info.deps.into_iter().map(compiled).collect()
}

/// Modules and versions of a document, without RoadRunner and the standard library.
fn listed(document: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cyclonedx = document["components"].as_array().into_iter().flatten();
    let cyclonedx = cyclonedx.map(|module| (text(&module["name"]), text(&module["version"])));
    let spdx = document["packages"].as_array().into_iter().flatten();
    let spdx = spdx.filter(|package| package["primaryPackagePurpose"] == "LIBRARY");
    let spdx = spdx.map(|module| (text(&module["name"]), text(&module["versionInfo"])));
    let modules: BTreeSet<_> = cyclonedx.chain(spdx).filter(|(name, _)| name != "stdlib").collect();
    assert!(!modules.is_empty());
    modules
}

#[test]
fn it_has_the_modules_of_the_binary_with_their_licenses() {
    let proxy = proxy();
    let sandbox = machine(&proxy).own_module_cache();
    sandbox
        .vx("build --sbom cyclonedx --sbom spdx=out/bom.json")
        .succeeds_with(&["rr.cdx.json", "out/bom.json"]);
    let (cyclonedx, spdx) = (json(&sandbox.read("rr.cdx.json")), json(&sandbox.read("out/bom.json")));
    let compiled = compiled(&sandbox.at("rr"));
    assert_eq!(listed(&cyclonedx), compiled);
    assert_eq!(listed(&spdx), compiled);

    let components = cyclonedx["components"].as_array().unwrap();
    let component =
        |name: &str| components.iter().find(|component| component["name"] == name).unwrap().clone();
    let hello = component("github.com/acme/hello");
    assert_eq!(hello["purl"], "pkg:golang/github.com/acme/hello@v1.0.0");
    assert_eq!(hello["licenses"][0]["license"]["id"], "MIT");
    assert_eq!(hello["externalReferences"][0]["url"], "https://github.com/acme/hello");
    let property = |component: &Value, name: &str| {
        let properties = component["properties"].as_array().unwrap();
        properties
            .iter()
            .find(|property| property["name"] == name)
            .map(|it| it["value"].as_str().unwrap().to_owned())
    };
    assert_eq!(property(&hello, "vx:plugin").as_deref(), Some("hello"));
    let sum = property(&hello, "vx:go.sum").unwrap();
    assert!(sandbox.read("velox.lock").contains(&sum), "{sum}");
    assert_eq!(component("example.com/acme/lib")["licenses"][0]["license"]["id"], "GPL-3.0");
    let bye = component("example.com/acme/bye");
    assert_eq!(
        (&bye["licenses"], property(&bye, "vx:license").as_deref()),
        (&Value::Array(Vec::new()), Some("unknown"))
    );
    assert_eq!(bye["externalReferences"][0]["url"], "https://git.acme.dev/bye");
    assert_eq!(bye["pedigree"]["commits"][0]["uid"], COMMIT);

    let requires = |reference: &str| {
        let all = cyclonedx["dependencies"].as_array().unwrap();
        all.iter().find(|edges| edges["ref"] == reference).unwrap()["dependsOn"].to_string()
    };
    assert_contains(&requires("pkg:golang/github.com/acme/hello@v1.0.0"), &["acme/lib@v1.0.0"]);
    let roadrunner = &cyclonedx["metadata"]["component"];
    assert_contains(
        &requires(roadrunner["bom-ref"].as_str().unwrap()),
        &["acme/hello@v1.0.0", "acme/bye@v1.0.0", "pkg:golang/stdlib@1."],
    );
    assert_eq!(roadrunner["version"], RELEASE);
    let sha256 = CommandOutput::from(Command::new("sha256sum").arg(sandbox.at("rr"))).ok();
    assert!(sha256.starts_with(roadrunner["hashes"][0]["content"].as_str().unwrap()), "{roadrunner}");
    assert_contains(&roadrunner.to_string(), &["-trimpath", "cdx:gomod:build:env:GOOS"]);
    for text in [sandbox.read("rr.cdx.json"), sandbox.read("out/bom.json")] {
        let home = sandbox.home();
        assert!(!text.contains("secret") && !text.contains(&*home.to_string_lossy()), "{text}");
    }

    // The cached binary has it, and another machine writes the same.
    let (written, document) = (fs::metadata(sandbox.at("rr.cdx.json")).unwrap(), sandbox.read("rr.cdx.json"));
    sandbox.vx("build --sbom cyclonedx").succeeds_with(&["cached"]);
    assert_eq!(
        fs::metadata(sandbox.at("rr.cdx.json")).unwrap().modified().unwrap(),
        written.modified().unwrap()
    );
    assert_eq!(sandbox.vx("sbom rr").ok(), document);
    assert_eq!(sandbox.vx("sbom --type spdx rr").ok(), sandbox.read("out/bom.json"));
    let other = machine(&proxy).own_module_cache().file("velox.lock", sandbox.read("velox.lock"));
    other.vx("build --sbom cyclonedx").ok();
    assert_eq!(other.read("rr.cdx.json"), document);

    // Without the binary it lacks only its checksum.
    let mut without = json(&other.vx("sbom").ok());
    let mut with = cyclonedx.clone();
    for document in [&mut without, &mut with] {
        document["serialNumber"].take();
        document["metadata"]["component"]["hashes"].take();
    }
    assert_eq!(without, with);
    fs::write(other.at("rr"), "another binary").unwrap();
    other.vx("sbom rr").fails_with(1, &["found no bill of materials of", "rr", "help: "]);
}

#[test]
fn local_replacements_and_several_targets_have_one() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    let local = plugin("example.com/acme/bye", "bye").says("local").files();
    let sandbox = sandbox.files("bye", local).file("bye/LICENSE", MIT);
    let toml = sandbox.read("velox.toml") + "replace = \"./bye\"\n";
    let sandbox = sandbox.file("velox.toml", toml);
    sandbox.vx("build --sbom cyclonedx --sbom spdx --target linux/amd64 --target windows/arm64").ok();
    for binary in ["rr-linux-amd64", "rr-windows-arm64"] {
        let file = if binary.contains("windows") { format!("{binary}.exe") } else { binary.to_owned() };
        for extension in ["cdx", "spdx"] {
            let document = json(&sandbox.read(&format!("{binary}.{extension}.json")));
            assert_eq!(listed(&document), compiled(&sandbox.at(file.as_str())), "{binary} {extension}");
        }
    }
    let document = json(&sandbox.read("rr-linux-amd64.cdx.json"));
    let bye = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["name"] == "example.com/acme/bye")
        .unwrap();
    assert_eq!((&bye["version"], &bye["licenses"][0]["license"]["id"]), (&"(devel)".into(), &"MIT".into()));

    let two = "--target linux/amd64 --target linux/arm64";
    sandbox
        .vx(&format!("build --sbom spdx=one.json {two}"))
        .fails_with(2, &["--sbom spdx=", "several targets", "help: "]);
    sandbox.vx(&format!("sbom {two}")).fails_with(2, &["several targets", "--target OS/ARCH"]);
    sandbox.vx("build --sbom syft").fails_with(2, &["expected cyclonedx or spdx"]);
    sandbox.vx("build --sbom spdx=").fails_with(2, &["expected a file name after `spdx=`"]);
    sandbox
        .vx("build --sbom spdx --output-file /dev/null")
        .fails_with(2, &["--sbom spdx requires a directory"]);
}

#[test]
fn foreign_tools_accept_it() {
    let Some(python) = validators::python("foreign_tools_accept_it") else { return };
    let proxy = proxy();
    let sandbox = machine(&proxy);
    sandbox.vx("build --sbom cyclonedx --sbom spdx").ok();
    validate(&python, &sandbox);
}

/// Reads both documents beside `rr` with the tools of CycloneDX and SPDX, and compares with `go version -m`.
fn validate(python: &Path, sandbox: &Sandbox) {
    let script = r#"
import sys, subprocess
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from cyclonedx.model.bom import Bom
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
import json
text = open("rr.cdx.json").read()
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
assert error is None, error
bom = Bom.from_json(json.loads(text))
document = parse_file("rr.spdx.json")
errors = validate_full_spdx_document(document)
assert not errors, errors
binary = set()
lines = subprocess.run(["go", "version", "-m", "rr"], capture_output=True, text=True, check=True).stdout.splitlines()
for line in lines:
    fields = line.split("\t")
    if len(fields) > 3 and fields[1] == "dep":
        binary.add((fields[2], fields[3]))
known = lambda modules: {module for module in modules if module[0] != "stdlib"}
assert known((c.name, c.version) for c in bom.components) == binary
packages = document.packages[1:]
assert known((p.name, p.version) for p in packages) == binary
print(len(binary))
"#;
    let mut command = sandbox.command(python, &["-c", script]);
    let counted: usize = CommandOutput::from(&mut command).ok().trim().parse().unwrap();
    assert!(counted > 3, "{counted}");
}

#[test]
fn licenses_are_grouped_and_denied() {
    let proxy = proxy();
    let sandbox = machine(&proxy);
    let shown = sandbox.vx("licenses").ok();
    assert_contains(
        &shown,
        &[
            "BSD-3-Clause (",
            "\n  stdlib 1.",
            "GPL-3.0 (2 modules)\n  example.com/acme/lib v1.0.0\n  github.com/roadrunner-server/errors ",
            "\n\nMIT (",
            "  github.com/acme/hello v1.0.0\n",
            "  example.com/acme/bye v1.0.0 (not recognized: LICENSE)\n",
            "(no license file)\n",
        ],
    );
    sandbox.vx("licenses --deny AGPL-3.0 --deny MPL-2.0").ok();
    let denied = "license GPL-3.0 is denied: example.com/acme/lib v1.0.0";
    for deny in ["--deny GPL-3.0", "--deny GPL-3.0-only", "--deny 'LGPL-3.0 OR GPL-3.0-or-later'"] {
        sandbox.vx(&format!("licenses {deny}")).fails_with(1, &[denied, "vx why example.com/acme/lib"]);
    }
    let unknown = "license unknown is denied: example.com/acme/bye v1.0.0";
    sandbox.vx("licenses --deny unknown").fails_with(1, &[unknown]);
    sandbox.vx("licenses --deny GPL").fails_with(2, &["GPL", "SPDX license identifiers"]);
    sandbox.vx("licenses --deny 'MIT AND ISC'").fails_with(2, &["join licenses with `OR`"]);

    sandbox.vx("licenses --output NOTICE").succeeds_with(&["wrote ", "NOTICE"]);
    let notice = sandbox.read("NOTICE");
    assert_contains(
        &notice,
        &[MIT.trim_end(), GPL.trim_end(), "Copyright 2026 The authors of hello", "ten coins"],
    );
    let events = sandbox.vx("licenses --format json --deny GPL-3.0");
    assert_eq!(events.code(), Some(1));
    let events = events.events();
    let event = events.iter().find(|event| event["event"] == "licenses").unwrap();
    let by_license: BTreeMap<String, &Value> = event["licenses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| (group["license"].to_string(), &group["modules"]))
        .collect();
    let mit = by_license["\"MIT\""].as_array().unwrap();
    let hello = mit.iter().find(|module| module["module"] == "github.com/acme/hello").unwrap();
    assert_eq!(hello["files"][0]["licenses"][0], "MIT");
    assert_eq!(hello["files"][1]["is_notice"], true);
    assert!(by_license.contains_key("null"));
    assert_eq!(event["denied"][0]["module"], "example.com/acme/lib");
}

#[test]
fn the_real_roadrunner_has_one() {
    const TEST: &str = "the_real_roadrunner_has_one";
    if module_tree(TEST).is_none() {
        return;
    }
    let sandbox = Sandbox::new().file("velox.toml", include_str!("../real-35-plugins.toml"));
    let document = json(&sandbox.vx("sbom").ok());
    let components = document["components"].as_array().unwrap();
    assert!(components.len() > 100, "{}", components.len());
    let unknown: Vec<&Value> = components
        .iter()
        .filter(|it| it["licenses"] == Value::Array(Vec::new()))
        .map(|it| &it["name"])
        .collect();
    assert!(unknown.len() * 20 < components.len(), "{unknown:?}");
    sandbox.vx("licenses --deny GPL-2.0 --deny GPL-3.0 --deny AGPL-3.0").ok();
}
