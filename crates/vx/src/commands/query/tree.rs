use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
};

use serde_json::{Value, json};
use velox_build::{BuildOptions, Goal};
use velox_query::{GraphModule, ModuleGraph};

use crate::{
    cli::{self, Format},
    commands::session::Prepared,
    report::{self, text::clean},
    settings::Settings,
};

/// `vx tree`.
pub(crate) async fn tree(settings: Settings, arguments: cli::Tree) -> ExitCode {
    let unicode = settings.terminal.unicode;
    let cli::Tree { server, depth, all } = arguments;
    let prepared = match Prepared::new(settings, server, |_| Goal::Plan, BuildOptions::default()) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let graph = match prepared.module_graph().await {
        Ok(graph) => graph,
        Err(code) => return code,
    };
    let text = match prepared.format {
        Format::Json => report::event("tree", &fields(&graph, depth, all)),
        Format::Human => {
            let mut drawing = Drawing {
                graph: &graph,
                all,
                depth: depth.unwrap_or(usize::MAX),
                marks: if unicode {
                    ["├── ", "└── ", "│   "]
                } else {
                    ["|-- ", "`-- ", "|   "]
                },
                drawn: BTreeSet::new(),
                repeated: false,
                text: String::new(),
            };
            drawing.draw();
            drawing.text
        }
    };
    prepared.answer(&clean(&text))
}

/// The tree as it is written.
struct Drawing<'a> {
    graph: &'a ModuleGraph,
    all: bool,
    depth: usize,
    /// For a branch, for the last one, and for what runs past.
    marks: [&'static str; 3],
    /// The modules whose branches are there already.
    drawn: BTreeSet<String>,
    repeated: bool,
    text: String,
}

impl Drawing<'_> {
    /// RoadRunner's own requirements come first, then each plugin as a tree of its own.
    fn draw(&mut self) {
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
            self.text += "\n(*) its requirements are shown above\n";
        }
    }

    fn module(&mut self, module: &GraphModule, indent: &str, depth: usize) {
        self.text += &format!("{} {}", module.path, module.version);
        if let Some(replacement) = &module.replacement {
            self.text += &format!(" => {replacement}");
        }
        let requirements =
            if depth < self.depth { self.graph.requirements(module, self.all) } else { Vec::new() };
        let again = !requirements.is_empty() && !self.drawn.insert(module.path.clone());
        self.repeated |= again;
        self.text += if again { " (*)\n" } else { "\n" };
        if !again {
            self.branches(&requirements, indent, depth + 1);
        }
    }

    fn branches(&mut self, modules: &[GraphModule], indent: &str, depth: usize) {
        let [branch, last, past] = self.marks;
        for (index, module) in modules.iter().enumerate() {
            let is_last = index + 1 == modules.len();
            self.text += indent;
            self.text += if is_last { last } else { branch };
            let deeper = format!("{indent}{}", if is_last { "    " } else { past });
            self.module(module, &deeper, depth);
        }
    }
}

/// The same as a flat map, which programs walk more easily.
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
