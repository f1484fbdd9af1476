//! Format-preserving edits and migrations.

use std::collections::BTreeMap;

use crate::{MANUAL, MODULES, shown, source, valid};
use proptest::{prelude::*, sample};
use velox_manifest::{
    Diagnostic, Manifest, ManifestFormat, Origin, Replacement, catalogue,
    edit::{Editor, Migration, NewOrigin, NewPlugin, migrate},
};

const TABLES: &str = "\
# What we serve with.
[roadrunner]
ref = \"v2025.1.15\" # the newest

[plugins.http] # the web
tag = \"v5.3.0\"
module_name = 'github.com/roadrunner-server/http/v5'
# replace = \"../http\"

# Metrics.
[plugins.metrics]
tag = \"v5.1.9\"
module_name = 'github.com/roadrunner-server/metrics/v5'

[log]
level = \"info\"
";
const COMPACT: &str =
    "[plugins.a]\nmodule_name = \"example.com/a\"\ntag = \"v1.0.0\"\n[log]\nlevel = \"info\"";
const SUBTABLES: &str = "[github.plugins.http]\n  ref = \"v5.0.2\"\n  owner = \"roadrunner-server\"\n  repository = \"http\"\n  folder = \".\"";
const DOTTED: &str = "plugins.a = { module_name = \"example.com/a\", tag = \"v1.0.0\" }\nstrict = true\n";
const DOTTED_KEYS: &str =
    "[plugins]\na.module_name = \"example.com/a\"\na.tag = \"v1.0.0\"\n\n# end\n[log]\nlevel = \"warn\"\n";
const NESTED: &str = "plugins = { a = { module_name = \"example.com/a\", tag = \"v1.0.0\" } }\n";
const GITLAB: &str =
    "[gitlab.plugins]\nx = { ref = \"main\", owner = \"acme\", repository = \"x\" } # ours\n";

const ALL: [&str; 9] = [MANUAL, MODULES, TABLES, COMPACT, SUBTABLES, DOTTED, DOTTED_KEYS, NESTED, GITLAB];

fn plugin(editor: &Editor, name: &str, reference: &str, replace: Option<&str>) -> NewPlugin {
    let owner = "acme".to_owned();
    NewPlugin {
        name: name.to_owned(),
        origin: match editor.format() {
            ManifestFormat::Modules => NewOrigin::Module("github.com/acme/added".to_owned()),
            ManifestFormat::Manual | ManifestFormat::Ancestor
                if editor.text().trim_start_matches('\u{feff}').starts_with("[gitlab") =>
            {
                NewOrigin::GitLab { owner, repository: "added".to_owned(), folder: None }
            }
            ManifestFormat::First | ManifestFormat::Manual | ManifestFormat::Ancestor => {
                NewOrigin::GitHub { owner, repository: "added".to_owned(), folder: Some("sub".to_owned()) }
            }
        },
        reference: reference.to_owned(),
        replace: replace.map(|replace| replace.parse().unwrap()),
    }
}

fn edited(text: &str, edit: impl Fn(&mut Editor) -> Result<(), Diagnostic>) -> String {
    let mut editor = Editor::new(text).unwrap();
    edit(&mut editor).unwrap_or_else(|error| panic!("{}", shown(text, &[error])));
    editor.text().to_owned()
}

fn added(text: &str) -> String {
    edited(text, |editor| editor.add(&plugin(editor, "added", "v1.2.3", Some("../added"))))
}

fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - same;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
    let removed = old[same..old.len() - tail].iter().map(|line| format!("-{line}\n"));
    let inserted = new[same..new.len() - tail].iter().map(|line| format!("+{line}\n"));
    removed.chain(inserted).collect()
}

#[test]
fn a_plugin_is_added_as_the_others_are_written() {
    let all: Vec<String> = ALL.iter().map(|text| difference(text, &added(text))).collect();
    insta::assert_snapshot!(all.join("---\n"));
}

#[test]
fn what_was_added_reads_as_it_was_meant_and_is_removed_without_a_trace() {
    for text in ALL {
        for text in [text.to_owned(), format!("\u{feff}{}", text.replace('\n', "\r\n"))] {
            let new = added(&text);
            let manifest = valid(&new, &[]);
            let plugin = manifest.plugins.iter().find(|plugin| plugin.name.value == "added").unwrap();
            assert_eq!(plugin.reference.value, "v1.2.3");
            assert_eq!(plugin.replace.as_ref().unwrap().value, Replacement::Directory("../added".into()));
            assert_eq!(manifest.plugins.len(), valid(&text, &[]).plugins.len() + 1);
            assert_eq!(edited(&new, |editor| editor.remove("added")), text);
            assert_eq!(new.matches("\r\n").count() > 0, text.contains("\r\n"));
        }
    }
}

#[test]
fn comments_of_vx_init_come_and_go_with_their_plugins() {
    let comment = |name: &str| catalogue::find(name).unwrap().comment();
    let table = |name: &str| format!("[plugins.{name}]\nmodule_name = \"a.b/{name}/v5\"\ntag = \"v5.0.0\"\n");
    let text = format!(
        "[roadrunner]\nref = \"v2025.1.15\"\n\n# --- HTTP\n\n{}\n# Ours.\n{}\n# --- Logging\n\n{}\n{}",
        comment("http"),
        table("http"),
        comment("logger"),
        table("logger"),
    );
    let add = |text: &str, name: &str| {
        edited(text, |editor| {
            let origin = NewOrigin::Module(format!("a.b/{name}/v5"));
            let reference = "v5.0.0".to_owned();
            editor.add(&NewPlugin { name: name.to_owned(), origin, reference, replace: None })
        })
    };
    let all = ["gzip", "kafka", "mine"].iter().fold(text.clone(), |text, name| add(&text, name));
    insta::assert_snapshot!(all);
    for names in [["gzip", "kafka", "mine"], ["mine", "kafka", "gzip"]] {
        let rest = names.iter().fold(all.clone(), |text, name| edited(&text, |editor| editor.remove(name)));
        assert_eq!(rest, text);
    }
    let rest = edited(&text, |editor| editor.remove("http"));
    assert!(rest.starts_with("[roadrunner]\nref = \"v2025.1.15\"\n\n# --- Logging\n"), "{rest}");
}

#[test]
fn a_file_without_plugins_gets_its_first_one() {
    for text in [
        "",
        "\u{feff}",
        "[roadrunner]\nref = \"v2025.1.15\"",
        "[plugins]\n",
        "[github.plugins] # ours\n",
        "plugins = {}",
    ] {
        let new = added(text);
        assert_eq!(valid(&new, &[]).plugins.len(), 1, "{new}");
        assert!(new.starts_with(text.trim_end_matches("{}")), "{new}");
    }
}

#[test]
fn refs_modules_and_replacements_change_where_they_stand() {
    let text = edited(TABLES, |editor| {
        editor.set_ref("http", "main")?;
        editor.set_module("metrics", "github.com/roadrunner-server/metrics/v6")?;
        editor.set_replace("metrics", Some(&"github.com/acme/metrics@v6.0.1".parse()?))?;
        editor.set_roadrunner("v2025.2.0")
    });
    insta::assert_snapshot!(text);
    let text = edited(&text, |editor| editor.set_replace("metrics", None));
    assert!(!text.contains("\nreplace"), "{text}");

    let manual = edited(MANUAL, |editor| {
        editor.set_ref("http", "v5.3.0")?;
        editor.set_module("http", "github.com/roadrunner-server/http/v5")?;
        editor.set_replace("http", Some(&Replacement::Directory("C:\\http".into())))
    });
    insta::assert_snapshot!(difference(MANUAL, &manual));
    assert_eq!(valid(&manual, &[]).plugins[7].replace.as_ref().unwrap().value.to_string(), "C:\\http");
}

#[test]
fn what_cannot_be_edited_is_told() {
    let mut editor = Editor::new(TABLES).unwrap();
    let new = plugin(&editor, "http", "v1.0.0", None);
    let wrong = [
        editor.add(&new).unwrap_err(),
        editor.remove("htp").unwrap_err(),
        editor.set_ref("nothing like it", "v1").unwrap_err(),
        Editor::new("[plugins").unwrap_err(),
        Editor::new("roadrunner = {}").unwrap().set_roadrunner("v1").unwrap_err(),
        "http".parse::<Replacement>().unwrap_err(),
    ];
    assert_eq!(editor.text(), TABLES);
    insta::assert_snapshot!(shown(TABLES, &wrong));
}

#[test]
fn a_ref_with_a_variable_is_known() {
    let text = "[plugins]\na = { module_name = \"example.com/a\", tag = \"${A_VERSION}\" }\nb = { module_name = \"b.c/d\", tag = \"v1.0.0\" }";
    let editor = Editor::new(text).unwrap();
    assert!(editor.has_variable_ref("a") && !editor.has_variable_ref("b") && !editor.has_variable_ref("c"));
    let text = "[roadrunner]\nref = \"${RR_VERSION}\"\n";
    let mut editor = Editor::new(text).unwrap();
    assert!(editor.has_variable_ref("roadrunner"));
    let error = editor.set_roadrunner("v2025.1.15").unwrap_err();
    assert_eq!(error.message, "the ref of RoadRunner contains a variable");
    assert_eq!(editor.text(), text);
}

/// Migrates `text`, with these module paths by plugin name.
fn migrated(text: &str, modules: &[(&str, &str)]) -> Result<Migration, Vec<Diagnostic>> {
    let modules: BTreeMap<_, _> =
        modules.iter().map(|(name, module)| ((*name).to_owned(), (*module).to_owned())).collect();
    let manifest = valid(text, &[]);
    migrate(&source(text), &manifest, &modules, &|_| None)
}

#[track_caller]
fn moved(text: &str, modules: &[(&str, &str)]) -> String {
    match migrated(text, modules) {
        Ok(migration) => migration.text,
        Err(errors) => panic!("{}", shown(text, &errors)),
    }
}

const IDS: [(&str, &str); 2] =
    [("test_plugin_1", "gitlab.com/rustatian/one"), ("test_plugin_2", "gitlab.com/rustatian/group/two/v3")];

#[test]
fn the_manuals_file_moves_to_the_newest_format() {
    let new = moved(MANUAL, &IDS);
    insta::assert_snapshot!(new);
    let comments =
        |text: &str| text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(comments(&new), comments(MANUAL));
    assert_eq!(moved(&new, &[]), new);
    let windows = MANUAL.replace('\n', "\r\n");
    assert_eq!(moved(&windows, &IDS), new.replace('\n', "\r\n"));
}

#[test]
fn every_way_of_writing_moves() {
    let mixed = "\
# The forge.
github.plugins.http = { ref = 'v5.0.2', owner = \"roadrunner-server\", repository = \"http\" } # web
github.plugins.rpc.ref = \"v1.0.0\"
github.plugins.rpc.owner = \"acme\" # us
github.plugins.rpc.repository = \"rpc\" # remote calls

[gitlab.plugins.x] # x
ref = \"main\" # a branch
# who
owner = \"acme\" # the group
repository = \"x\"
folder = \"go\"
replace = \"../x\"

[velox] # gone
build_args = [ # what it was
  \"-trimpath\", \"-ldflags\", \"-s -X github.com/roadrunner-server/roadrunner/v2023/internal/meta.version=${VERSION}\",
]
# the end
";
    let migration = migrated(mixed, &[("x", "gitlab.com/acme/x/go")]).unwrap();
    insta::assert_snapshot!(format!("{}---\n{:?}", migration.text, migration.dropped));
    for text in [SUBTABLES, GITLAB] {
        let new =
            moved(text, &[("x", "gitlab.com/acme/x"), ("http", "github.com/roadrunner-server/http/v5")]);
        assert_eq!(valid(&new, &[]).format, ManifestFormat::Modules);
    }
    for text in [TABLES, DOTTED, MODULES] {
        assert_eq!(moved(text, &[]), text);
    }
}

#[test]
fn build_arguments_that_say_something_stay() {
    let text = "[velox]\nbuild_args = [\"-tags=aws\", \"-ldflags=-s=false\"]\n[github.plugins]\n\
                a = { ref = \"v1.0.0\", owner = \"o\", repository = \"r\" }\n";
    let new = moved(text, &[]);
    let manifest = valid(&new, &[]);
    assert_eq!(
        (manifest.format, manifest.build_args.tags, manifest.build_args.strip),
        (ManifestFormat::Modules, vec!["aws".to_owned()], Some(false))
    );
}

#[test]
fn what_the_newest_format_has_no_words_for_is_refused_by_name() {
    let texts = [
        (MANUAL, &[][..]),
        (
            "[github.plugins]\na = { ref = \"main\", owner = \"o\", repository = \"r\" }",
            &[("a", "acme.dev/a")],
        ),
        (
            "[github.plugins]\na = { ref = \"v1.0.0\", owner = \"o\", repository = \"r\" }\n\
             [gitlab.plugins]\na = { ref = \"v1.0.0\", owner = \"o\", repository = \"s\" }",
            &[],
        ),
        (
            "gitlab = { endpoint.endpoint = \"https://git.acme.dev/gitlab\", plugins.a = { ref = \"main\", repository = \"1\" } }",
            &[("a", "git.acme.dev/gitlab/x")],
        ),
        ("[github]\nplugins = { a = { ref = \"v1.0.0\", owner = \"o\", repository = \"r\" } }", &[]),
    ];
    let all: Vec<String> =
        texts.iter().map(|(text, modules)| shown(text, &migrated(text, modules).err().unwrap())).collect();
    insta::assert_snapshot!(all.join("\n---\n"));
}

#[test]
fn the_file_alone_tells_the_module_of_a_tag_only() {
    let manifest = valid(
        "[github.plugins]\na = { ref = \"v2.1.0\", owner = \"o\", repository = \"r\" }\n\
         b = { ref = \"main\", owner = \"o\", repository = \"b\" }\n\
         c = { ref = \"v1.0.0\", owner = \"o\", repository = \"c\", folder = \"x\" }\n\
         d = { ref = \"v0.1.0\", owner = \"o\", repository = \"d\" }\n",
        &[],
    );
    let modules: Vec<_> = manifest.plugins.iter().map(|plugin| plugin.module_path(&manifest)).collect();
    assert_eq!(
        modules,
        [Some("github.com/o/r/v2".to_owned()), None, None, Some("github.com/o/d".to_owned())]
    );
}

/// A configuration of either format with random comments and blank lines.
fn configurations() -> impl Strategy<Value = String> {
    let noise = sample::select(vec!["", "\n", "# a comment\n", "\n# x = [1]\n\n", "  # indented\n"]);
    let shape = 0..4_usize;
    let plugins = prop::collection::vec((noise, sample::select(vec!["", " # note"]), "[a-z]{1,6}"), 1..5);
    (shape, plugins, sample::select(vec!["\n", "\r\n"]), any::<bool>(), any::<bool>()).prop_map(
        |(shape, plugins, ending, last, bom)| {
            let mut text = String::from("# top\n[roadrunner]\nref = \"v2025.1.15\"\n\n");
            text.push_str(["[github.plugins]\n", "[plugins]\n", "", ""][shape]);
            for (index, (noise, note, name)) in plugins.iter().enumerate() {
                text.push_str(noise);
                text.push_str(&match shape {
                    0 => format!("{name}{index} = {{ ref = \"v1.0.{index}\", owner = \"o\", repository = \"r{index}\" }}{note}\n"),
                    1 => format!("{name}{index} = {{ module_name = 'a.b/r{index}', tag = \"v1.0.{index}\" }}{note}\n"),
                    2 => format!("[plugins.{name}{index}]{note}\ntag = \"v1.0.{index}\"{note}\nmodule_name = \"a.b/r{index}\"\n"),
                    _ => format!("[github.plugins.{name}{index}]\nowner = \"o\"\nref = \"v1.0.{index}\"{note}\nrepository = \"r{index}\"\n"),
                });
            }
            text.push_str("\n# end\n[log]\nlevel = \"info\"\n");
            let text = if last { text } else { text.trim_end().to_owned() };
            format!("{}{}", if bom { "\u{feff}" } else { "" }, text.replace('\n', ending))
        },
    )
}

fn plugins(manifest: &Manifest) -> Vec<(String, String, String)> {
    let origin = |origin: &Origin| match origin {
        Origin::Module(path) => path.value.clone(),
        Origin::GitHub { owner, repository, .. } => format!("{}/{}", owner.value, repository.value),
        Origin::GitLab { .. } => String::new(),
    };
    let all = manifest.plugins.iter();
    all.map(|plugin| (plugin.name.value.clone(), origin(&plugin.origin), plugin.reference.value.clone()))
        .collect()
}

proptest! {
    #[test]
    fn to_add_and_to_remove_is_to_do_nothing(text in configurations()) {
        let new = added(&text);
        let mut expected = plugins(&valid(&text, &[]));
        let module = if text.contains("[plugins") { "github.com/acme/added" } else { "acme/added" };
        expected.push(("added".into(), module.into(), "v1.2.3".into()));
        prop_assert_eq!(plugins(&valid(&new, &[])), expected);
        for line in text.lines() {
            prop_assert!(new.lines().any(|kept| kept == line));
        }
        prop_assert_eq!(edited(&new, |editor| editor.remove("added")), text);
    }

    #[test]
    fn a_new_ref_changes_one_line_and_the_old_one_brings_it_back(text in configurations(), index in any::<sample::Index>()) {
        let before = plugins(&valid(&text, &[]));
        let (name, _, old) = index.get(&before).clone();
        let new = edited(&text, |editor| editor.set_ref(&name, "some/branch"));
        let differ = text.lines().zip(new.lines()).filter(|(old, new)| old != new).count();
        prop_assert_eq!((differ, new.lines().count()), (1, text.lines().count()));
        prop_assert_eq!(edited(&new, |editor| editor.set_ref(&name, &old)), text.as_str());
        let replaced = edited(&text, |editor| editor.set_replace(&name, Some(&Replacement::Directory("../x".into()))));
        prop_assert!(replaced.contains("replace = "));
        prop_assert_eq!(edited(&replaced, |editor| editor.set_replace(&name, None)), text);
    }

    #[test]
    fn removing_takes_one_plugin_and_no_comment(text in configurations(), index in any::<sample::Index>()) {
        let mut rest = plugins(&valid(&text, &[]));
        prop_assume!(rest.len() > 1);
        let name = index.get(&rest).0.clone();
        rest.retain(|(known, ..)| *known != name);
        let new = edited(&text, |editor| editor.remove(&name));
        prop_assert_eq!(plugins(&valid(&new, &[])), rest);
        let comments = |text: &str| text.lines().filter(|line| line.trim_start().starts_with('#')).count();
        prop_assert_eq!(comments(&new), comments(&text));
    }

    #[test]
    fn migrating_loses_nothing(text in configurations()) {
        let new = moved(&text, &[]);
        let names = |text: &str| plugins(&valid(text, &[])).into_iter().map(|(name, _, at)| (name, at)).collect::<Vec<_>>();
        prop_assert_eq!(names(&new), names(&text));
        prop_assert_eq!(new.matches('#').count(), text.matches('#').count());
        prop_assert_eq!(new.starts_with('\u{feff}'), text.starts_with('\u{feff}'));
        prop_assert_eq!(moved(&new, &[]), new);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", name in ".{0,10}") {
        if let Ok(mut editor) = Editor::new(&text) {
            let new = plugin(&editor, &name, "v1.0.0", None);
            let _ = editor.add(&new);
            let _ = editor.set_ref(&name, "x");
            let _ = editor.remove(&name);
        }
    }
}

#[test]
fn a_plugin_is_added_to_its_group() {
    let table = |name: &str, major: &str| {
        format!(
            "[plugins.{name}]\nmodule_name = \"github.com/roadrunner-server/{name}/{major}\"\ntag = \"{major}.0.0\"\n"
        )
    };
    let text = ["http", "kv", "redis", "logger"].map(|name| table(name, "v5")).join("\n");
    let mut editor = Editor::new(&text).unwrap();
    let add = |editor: &mut Editor, name: &str| {
        let origin = NewOrigin::Module(format!("github.com/roadrunner-server/{name}/v5"));
        let plugin =
            NewPlugin { name: name.to_owned(), origin, reference: "v5.0.0".to_owned(), replace: None };
        editor.add(&plugin).unwrap();
    };
    add(&mut editor, "gzip");
    add(&mut editor, "memcached");
    add(&mut editor, "mine");
    assert_eq!(editor.names(), ["http", "gzip", "kv", "redis", "memcached", "logger", "mine"]);
}
