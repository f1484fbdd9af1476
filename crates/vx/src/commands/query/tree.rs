use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use velox_query::{GraphModule, ModuleGraph};

use crate::{
    cli::{OutputFormat, query::TreeCommand},
    commands::session::Session,
    report::{self, text::clean},
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn tree(settings: Settings, arguments: TreeCommand) -> CommandResult {
    let TreeCommand { project, depth, all } = arguments;
    let symbols = match settings.terminal.unicode {
        true => ["├── ", "└── ", "│   "],
        false => ["|-- ", "`-- ", "|   "],
    };
    let session = Session::open(settings, project)?;
    let graph = session.module_graph().await?;
    let text = match session.format {
        OutputFormat::Json => report::event("tree", &fields(&graph, depth, all)),
        OutputFormat::Human => TreeRenderer {
            graph: &graph,
            all,
            depth: depth.unwrap_or(usize::MAX),
            symbols,
            shown: BTreeSet::new(),
            repeated: false,
            text: String::new(),
        }
        .render(),
    };
    session.print(&clean(&text))
}

struct TreeRenderer<'a> {
    graph: &'a ModuleGraph,
    all: bool,
    depth: usize,
    /// The prefixes of a branch, of the last branch, and of lines below a branch.
    symbols: [&'static str; 3],
    /// The modules whose requirements were already shown.
    shown: BTreeSet<String>,
    repeated: bool,
    text: String,
}

impl TreeRenderer<'_> {
    /// Renders the requirements of RoadRunner, then a tree for each plugin.
    fn render(mut self) -> String {
        let roadrunner = &self.graph.lock().roadrunner;
        self.text += &format!("{} {}\n", roadrunner.module, roadrunner.version);
        if self.depth > 0 {
            self.branches(&self.graph.roadrunner(self.all), "", 1);
        }
        for plugin in &self.graph.lock().plugins {
            let Some(module) = self.graph.module(&plugin.module) else { continue };
            self.text += &format!("\n{}: ", plugin.name);
            self.module(&module, "", 0);
        }
        if self.repeated {
            self.text += "\n(*) requirements are shown above\n";
        }
        self.text
    }

    fn module(&mut self, module: &GraphModule, indent: &str, depth: usize) {
        self.text += &format!("{} {}", module.path, module.version);
        if let Some(replacement) = &module.replacement {
            self.text += &format!(" => {replacement}");
        }
        let requirements =
            if depth < self.depth { self.graph.requirements(module, self.all) } else { Vec::new() };
        let again = !requirements.is_empty() && !self.shown.insert(module.path.clone());
        self.repeated |= again;
        self.text += if again { " (*)\n" } else { "\n" };
        if !again {
            self.branches(&requirements, indent, depth + 1);
        }
    }

    fn branches(&mut self, modules: &[GraphModule], indent: &str, depth: usize) {
        let [branch, last, line] = self.symbols;
        for (index, module) in modules.iter().enumerate() {
            let is_last = index + 1 == modules.len();
            self.text += indent;
            self.text += if is_last { last } else { branch };
            let deeper = format!("{indent}{}", if is_last { "    " } else { line });
            self.module(module, &deeper, depth);
        }
    }
}

/// The tree as a flat map of modules.
fn fields(graph: &ModuleGraph, depth: Option<usize>, all: bool) -> Value {
    let paths =
        |modules: &[GraphModule]| modules.iter().map(|module| module.path.clone()).collect::<Vec<_>>();
    let own = graph.roadrunner(all);
    let mut modules: BTreeMap<String, Value> = BTreeMap::new();
    let plugins = graph.plugins();
    let mut level: Vec<GraphModule> = plugins.clone();
    let mut below = own.clone();
    for at in 0..=depth.unwrap_or(usize::MAX) {
        let mut next = std::mem::take(&mut below);
        for module in level {
            if modules.contains_key(&module.path) {
                continue;
            }
            let requirements = graph.requirements(&module, all);
            let fields = json!({
                "version": module.version,
                "replacement": module.replacement,
                "requires": if Some(at) == depth { Vec::new() } else { paths(&requirements) },
            });
            modules.insert(module.path, fields);
            next.extend(requirements);
        }
        if next.is_empty() {
            break;
        }
        level = next;
    }
    let plugin = |name: &str, module: &str| json!({ "name": name, "module": module });
    json!({
        "roadrunner": graph.lock().roadrunner.module,
        "version": graph.lock().roadrunner.version,
        "requires": if depth == Some(0) { Vec::new() } else { paths(&own) },
        "plugins": graph.lock().plugins.iter().map(|it| plugin(&it.name, &it.module)).collect::<Vec<_>>(),
        "modules": modules,
    })
}
