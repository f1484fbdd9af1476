use serde_json::{Value, json};
use velox_build::LoweredModule;
use velox_manifest::Diagnostic;
use velox_query::{GraphModule, ModuleGraph, ModuleRequirement, Requirer, Why};

use crate::{
    cli::{OutputFormat, query::WhyCommand},
    commands::session::Session,
    report::{self, text::clean},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn why(settings: Settings, arguments: WhyCommand) -> CommandResult {
    let arrow = if settings.terminal.unicode { " → " } else { " -> " };
    let session = Session::open(settings, arguments.project)?;
    let graph = session.module_graph().await?;
    let paths = graph.find(&arguments.module);
    let (&[_], Some(why)) = (paths.as_slice(), paths.first().and_then(|path| graph.why(path))) else {
        return Err(session.invalid(not_unique(&graph, &arguments.module, &paths)));
    };
    session.print(&match session.format {
        OutputFormat::Json => clean(&report::event("why", &fields(&why))).into_owned(),
        OutputFormat::Human => clean(&render(&why, arrow)).into_owned(),
    })
}

fn not_unique(graph: &ModuleGraph, name: &str, paths: &[&str]) -> Diagnostic {
    if paths.len() > 1 {
        return Diagnostic::error(format!("`{name}` is ambiguous"))
            .help(format!("use the path of a module: {}", paths.join(", ")));
    }
    let nearest = graph.nearest(name);
    let help = match nearest.is_empty() {
        true => "`vx tree` lists all modules".to_owned(),
        false => format!("did you mean `{}`?", nearest.join("`, `")),
    };
    Diagnostic::error(format!("no module matches `{name}`")).help(help)
}

fn render(why: &Why, arrow: &str) -> String {
    let Why { module, compiled, lowered, demanded, chains } = why;
    let mut text = format!("{} {} is selected", module.path, module.version);
    if let Some(replacement) = &module.replacement {
        text += &format!(", replaced by {replacement}");
    }
    if !compiled {
        text += "; none of its packages is compiled in";
    }
    text.push('\n');
    for LoweredModule { plugin, from, .. } in lowered {
        text += &format!("Lowered from {from}, with which plugin {plugin} doesn't compile\n");
    }
    if !demanded.is_empty() {
        text += "\nRequired at\n";
    }
    let width = demanded.iter().map(|requirement| requirement.version.len()).max().unwrap_or_default();
    let mut last = "";
    for requirement in demanded {
        let version = if requirement.version == last { "" } else { requirement.version.as_str() };
        last = &requirement.version;
        text += &format!("  {version:width$}  by {}\n", requirer(requirement));
    }
    if !chains.is_empty() {
        text += "\nNeeded by\n";
    }
    for chain in chains {
        let modules = chain.iter().map(|module| format!("{} {}", module.path, module.version));
        text += &format!("  {}\n", modules.collect::<Vec<_>>().join(arrow));
    }
    text
}

fn requirer(requirement: &ModuleRequirement) -> String {
    let by = match &requirement.by {
        Requirer::Configuration(name) => return format!("the configuration (plugin {name})"),
        Requirer::Floor => return "the configuration ([[requires]])".to_owned(),
        Requirer::RoadRunner => "RoadRunner".to_owned(),
        Requirer::Module(module) => format!("{} {}", module.path, module.version),
    };
    if requirement.indirect { by + " (indirectly)" } else { by }
}

fn fields(why: &Why) -> Value {
    let module = |module: &GraphModule| json!({ "module": module.path, "version": module.version });
    let demanded = why.demanded.iter().map(|requirement| {
        let ModuleRequirement { by, version, indirect } = requirement;
        let mut fields = json!({ "version": version, "indirect": indirect });
        match by {
            Requirer::Configuration(name) => fields["plugin"] = json!(name),
            Requirer::Floor => fields["configuration"] = json!(true),
            Requirer::RoadRunner => fields["roadrunner"] = json!(true),
            Requirer::Module(by) => fields["by"] = json!({ "module": by.path, "version": by.version }),
        }
        fields
    });
    json!({
        "module": why.module.path,
        "version": why.module.version,
        "replacement": why.module.replacement,
        "compiled": why.compiled,
        "lowered": why.lowered,
        "demanded": demanded.collect::<Vec<_>>(),
        "chains": why.chains.iter().map(|chain| chain.iter().map(module).collect()).collect::<Vec<Vec<_>>>(),
    })
}
