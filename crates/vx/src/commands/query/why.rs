use std::{collections::BTreeMap, process::ExitCode};

use serde_json::{Value, json};
use velox_build::{BuildOptions, Goal};
use velox_manifest::{Diagnostic, Level};
use velox_query::{GraphModule, ModuleGraph, Requirement, Requirer, Why};

use crate::{
    cli::{self, Format},
    commands::session::Prepared,
    report::{self, Failure, text::clean},
    settings::Settings,
    status::Ending,
};

/// `vx why`.
pub(crate) async fn why(settings: Settings, arguments: cli::Why) -> ExitCode {
    let arrow = if settings.terminal.unicode { "→" } else { "->" };
    let prepared = match Prepared::new(settings, arguments.server, |_| Goal::Plan, BuildOptions::default()) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let graph = match prepared.module_graph().await {
        Ok(graph) => graph,
        Err(code) => return code,
    };
    let path = match graph.named(&arguments.module).as_slice() {
        [path] => (*path).to_owned(),
        paths => return not_one(&prepared, &graph, &arguments.module, paths),
    };
    let Some(why) = graph.why(&path) else { return not_one(&prepared, &graph, &arguments.module, &[]) };
    let text = match prepared.format {
        Format::Json => report::event("why", &fields(&why)),
        Format::Human => shown(&why, arrow),
    };
    prepared.answer(&clean(&text))
}

fn not_one(prepared: &Prepared, graph: &ModuleGraph, wanted: &str, paths: &[&str]) -> ExitCode {
    let (message, help) = if paths.is_empty() {
        let near = graph.nearest(wanted);
        let help = if near.is_empty() {
            "`vx tree` shows the modules of this server".to_owned()
        } else {
            format!("did you mean {}?", near.join(", "))
        };
        (format!("no module of this server is called `{wanted}`"), help)
    } else {
        let message = format!("`{wanted}` may be one of {} modules", paths.len());
        (message, format!("name one by its path: {}", paths.join(", ")))
    };
    let diagnostic = Diagnostic { level: Level::Error, message, span: None, label: None, help: vec![help] };
    let ending = Ending::Configuration;
    prepared.report.failed(&Failure { ending, diagnostics: &[diagnostic], output: &[] });
    ending.into()
}

fn shown(why: &Why, arrow: &str) -> String {
    let Why { module, compiled, demanded, chains } = why;
    let mut text = format!("{} {} is selected", module.path, module.version);
    if let Some(replacement) = &module.replacement {
        text += &format!(", replaced by {replacement}");
    }
    if !compiled {
        text += "; no package of it is compiled in";
    }
    text.push('\n');
    if !demanded.is_empty() {
        text += "\nRequired at\n";
    }
    // Many ask for the same version: it is said once.
    let width = demanded.iter().map(|one| one.version.len()).max().unwrap_or_default();
    let mut last = "";
    for one in demanded {
        let version = if one.version == last { "" } else { one.version.as_str() };
        last = &one.version;
        text += &format!("  {version:width$}  by {}\n", by(one));
    }
    if !chains.is_empty() {
        text += "\nNeeded by\n";
    }
    for chain in chains {
        let names: Vec<String> = chain.iter().map(named).collect();
        text += &format!("  {}\n", names.join(&format!(" {arrow} ")));
    }
    text
}

fn named(module: &GraphModule) -> String {
    format!("{} {}", module.path, module.version)
}

fn by(demanded: &Requirement) -> String {
    let who = match &demanded.by {
        Requirer::Configuration(name) => return format!("the configuration (plugin {name})"),
        Requirer::RoadRunner => "RoadRunner itself".to_owned(),
        Requirer::Module(module) => format!("{} {}", module.path, module.version),
    };
    if demanded.indirect { who + " (indirectly)" } else { who }
}

fn fields(why: &Why) -> Value {
    let module = |module: &GraphModule| json!({ "module": module.path, "version": module.version });
    let demanded = why.demanded.iter().map(|one| {
        let mut fields = BTreeMap::from([("version", json!(one.version)), ("indirect", json!(one.indirect))]);
        match &one.by {
            Requirer::Configuration(name) => fields.insert("plugin", json!(name)),
            Requirer::RoadRunner => fields.insert("roadrunner", json!(true)),
            Requirer::Module(by) => fields.insert("by", json!({ "module": by.path, "version": by.version })),
        };
        json!(fields)
    });
    json!({
        "module": why.module.path,
        "version": why.module.version,
        "replacement": why.module.replacement,
        "compiled": why.compiled,
        "demanded": demanded.collect::<Vec<_>>(),
        "chains": why.chains.iter().map(|chain| chain.iter().map(module).collect()).collect::<Vec<Vec<_>>>(),
    })
}
