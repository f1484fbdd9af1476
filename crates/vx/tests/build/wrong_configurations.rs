//! Invalid configurations: `vx build` reports file, line, column and caret, exits with 2, and never panics.

use crate::support::sandbox::Sandbox;

/// Runs `vx build` on `configuration`; the snapshot shows both.
#[track_caller]
fn refused(name: &str, configuration: &str) {
    let shown = Sandbox::new().file("velox.toml", configuration).vx_shown("build");
    let errors = shown.strip_prefix("exit code: 2\n--- stdout\n--- stderr\n");
    let errors = errors.unwrap_or_else(|| panic!("not refused as a configuration:\n{shown}"));
    assert!(!errors.contains("internal error") && !errors.contains("goroutine"), "{errors}");
    assert!(errors.contains("error: "), "{errors}");
    insta::with_settings!({ omit_expression => true }, {
        insta::assert_snapshot!(name, format!("{configuration}\n--------\n{errors}"));
    });
}

/// The manual's format, with `lines` below `[github.plugins]`.
fn manual(lines: &str) -> String {
    format!("[roadrunner]\nref = \"v2024.2.1\"\n\n[github.plugins]\n{lines}\n")
}

/// The newest format, with `lines` below a valid plugin.
fn modules(lines: &str) -> String {
    format!(
        "[roadrunner]\nref = \"v2025.1.15\"\n\n[plugins.http]\nmodule_name = \"github.com/roadrunner-server/http/v5\"\n\
         tag = \"v5.2.7\"\n\n{lines}\n"
    )
}

macro_rules! refused {
    ($($name:ident: $configuration:expr;)*) => {
        $(#[test] fn $name() { refused(stringify!($name), $configuration.as_ref()); })*
    };
}

refused! {
    empty: "";
    not_toml: "[roadrunner\nref = \"v2024.2.1\"\n";
    json_instead_of_toml: "{\"roadrunner\": {\"ref\": \"v2024.2.1\"}}\n";
    value_without_quotes: manual("http = { ref = v5.0.2, owner = \"roadrunner-server\", repository = \"http\" }");
    key_twice: "[roadrunner]\nref = \"v2024.2.1\"\nref = \"v2024.2.2\"\n";
    no_plugin: "[roadrunner]\nref = \"v2024.2.1\"\n";
    no_plugin_in_the_table: manual("");
    unknown_section: format!("{}\n[roadruner]\nref = \"v1\"\n", modules(""));
    unknown_key: manual("http = { reff = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"http\" }");
    section_is_a_string: "roadrunner = \"v2024.2.1\"\n";
    debug_is_a_string: format!("[debug]\nenabled = \"yes\"\n\n{}", modules(""));
    plugin_is_a_string: manual("http = \"v5.0.2\"");
    missing_ref: manual("http = { owner = \"roadrunner-server\", repository = \"http\" }");
    missing_owner: manual("http = { ref = \"v5.0.2\", repository = \"http\" }");
    missing_repository: manual("http = { ref = \"v5.0.2\", owner = \"roadrunner-server\" }");
    empty_ref: manual("http = { ref = \"\", owner = \"roadrunner-server\", repository = \"http\" }");
    ref_that_cannot_be_one: manual("http = { ref = \"v5..0 2\", owner = \"roadrunner-server\", repository = \"http\" }");
    ref_that_is_a_flag: manual("http = { ref = \"--upload-pack=x\", owner = \"roadrunner-server\", repository = \"http\" }");
    owner_that_cannot_be_one: manual("http = { ref = \"v5.0.2\", owner = \"../roadrunner\", repository = \"http\" }");
    folder_that_leaves_the_repository: manual("cache = { ref = \"v1.6.18\", owner = \"darkweak\", repository = \"souin\", folder = \"../plugins\" }");
    folder_that_is_absolute: manual("cache = { ref = \"v1.6.18\", owner = \"darkweak\", repository = \"souin\", folder = \"C:/plugins\" }");
    two_plugins_of_one_repository: manual("http = { ref = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"http\" }\nweb = { ref = \"v5.0.1\", owner = \"roadrunner-server\", repository = \"http\" }");
    two_plugins_of_one_module: modules("[plugins.web]\nmodule_name = \"github.com/roadrunner-server/http/v5\"\ntag = \"v5.2.6\"");
    two_formats: format!("{}\n[github.plugins]\nlogger = {{ ref = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"logger\" }}\n", modules(""));
    unset_variable: manual("http = { ref = \"${HTTP_REF}\", owner = \"roadrunner-server\", repository = \"http\" }");
    unclosed_variable: manual("http = { ref = \"${HTTP_REF\", owner = \"roadrunner-server\", repository = \"http\" }");
    missing_tag: "[plugins.http]\nmodule_name = \"github.com/roadrunner-server/http/v5\"\n";
    missing_module_name: "[plugins.http]\ntag = \"v5.2.7\"\n";
    module_name_that_is_a_url: "[plugins.http]\nmodule_name = \"https://github.com/roadrunner-server/http\"\ntag = \"v5.2.7\"\n";
    tag_of_another_major: "[plugins.http]\nmodule_name = \"github.com/roadrunner-server/http/v5\"\ntag = \"v4.0.0\"\n";
    unknown_target: modules("[target_platform]\nos = \"linus\"\narch = \"amd64\"");
    replace_without_a_new: modules("[[replaces]]\nold = \"github.com/roadrunner-server/http/v5\"");
    replace_that_is_no_list: modules("[replaces]\nold = \"a.example/a\"\nnew = \"../a\"");
    exclude_without_a_version: modules("[[excludes]]\nmodule = \"github.com/roadrunner-server/http/v5\"");
    exclude_of_no_version: modules("[[excludes]]\nmodule = \"github.com/roadrunner-server/http/v5\"\nversion = \"newest\"");
    endpoint_that_is_no_url: format!("[gitlab.endpoint]\nendpoint = \"gitlab example\"\n\n{}", manual("http = { ref = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"http\" }"));
    unsafe_build_argument: format!("[velox]\nbuild_args = [\"-trimpath\", \"-toolexec\", \"/bin/sh\"]\n\n{}", manual("http = { ref = \"v4.0.0\", owner = \"roadrunner-server\", repository = \"http\" }"));
    require_of_no_version: modules("[[requires]]\nmodule = \"golang.org/x/crypto\"\nversion = \"newest\"");
    require_twice: modules("[[requires]]\nmodule = \"golang.org/x/crypto\"\nversion = \"v0.1.0\"\n\n[[requires]]\nmodule = \"golang.org/x/crypto\"\nversion = \"v0.2.0\"");
    go_with_a_prefix: modules("[go]\nversion = \"go1.26\"");
    go_without_a_version: modules("[go]\nversion = \"newest\"");
    go_that_is_too_old: modules("[go]\nversion = \"1.20.3\"");
    unknown_dependencies: "[roadrunner]\nref = \"v2024.2.1\"\ndependencies = \"newest\"\n\n[github.plugins]\nhttp = { ref = \"v5.0.2\", owner = \"roadrunner-server\", repository = \"http\" }\n";
    many_mistakes_at_once: "[roadrunner]\nreff = \"v2024.2.1\"\n\n[debug]\nenabled = 1\n\n[github.plugins]\nhttp = { ref = \"v5 0\", owner = \"roadrunner-server\" }\nlogger = { owner = \"roadrunner-server\", repository = \"logger\", folder = \"../x\" }\n\n[log]\nlevel = \"loud\"\n";
}
