//! The Renovate configuration of the documentation, with the regular expressions of JavaScript.

use crate::support::{
    book::page,
    sandbox::{Sandbox, program, skip},
};

/// Prints what the custom managers find in velox.toml, as Renovate does: each match of each expression, with its template.
const EXTRACT: &str = r#"
const fs = require("fs");
const { customManagers } = JSON.parse(fs.readFileSync("renovate.json", "utf8"));
const text = fs.readFileSync("velox.toml", "utf8");
for (const { managerFilePatterns, matchStrings, depNameTemplate, datasourceTemplate } of customManagers) {
  for (const pattern of managerFilePatterns) {
    const is_read = (path) => new RegExp(pattern.slice(1, -1)).test(path);
    if (!is_read("velox.toml") || !is_read("a/velox.toml") || is_read("my-velox.toml")) throw pattern;
  }
  for (const { groups } of matchStrings.flatMap((it) => [...text.matchAll(new RegExp(it, "g"))])) {
    const name = groups.depName ?? depNameTemplate.replace(/\{\{\{(\w+)\}\}\}/g, (_, name) => groups[name]);
    console.log(datasourceTemplate, name, groups.currentValue);
  }
}
"#;

#[test]
fn renovate_finds_the_versions_in_velox_toml() {
    if program("node").is_none() {
        return skip("renovate_finds_the_versions_in_velox_toml", "there is no node");
    }
    let page = page("docs/ci.md");
    let blocks = page.blocks();
    let preset = blocks.iter().find(|block| block.text.contains("customManagers")).unwrap();
    let configuration = "[roadrunner]\nref = \"v2025.1.9\"\n\n\
        [plugins.http]\nmodule_name = \"github.com/roadrunner-server/http/v5\"\ntag = \"v5.2.0\"\n\n\
        [plugins.main]\nmodule_name = \"github.com/acme/main\"\ntag = \"main\"\n\n\
        [github.plugins]\nrpc = { ref = \"v5.1.8\", owner = \"roadrunner-server\", repository = \"rpc\" }\n\
        own = { ref = \"master\", owner = \"acme\", repository = \"own\" }\n";
    let sandbox = Sandbox::new()
        .file("velox.toml", configuration)
        .file("renovate.json", &preset.text)
        .file("extract.js", EXTRACT);
    let found = "go github.com/roadrunner-server/roadrunner/v2025 v2025.1.9\n\
        go github.com/roadrunner-server/http/v5 v5.2.0\n\
        github-tags roadrunner-server/rpc v5.1.8\n";
    assert_eq!(sandbox.run("node extract.js"), found);
}
