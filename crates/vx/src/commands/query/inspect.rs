use velox_query::{BinaryModule, Inspection};

use crate::{
    cli::{OutputFormat, query::InspectCommand},
    report::{
        self,
        text::{clean, count, table},
    },
    settings::Settings,
    status::CommandResult,
};

pub(crate) fn inspect(settings: &Settings, arguments: &InspectCommand) -> CommandResult {
    let inspection =
        velox_query::inspect(&arguments.file).map_err(|error| report::failed(settings, &error))?;
    report::print(&match settings.format() {
        OutputFormat::Json => report::event("inspected", &inspection),
        OutputFormat::Human => clean(&render(&inspection, arguments.all)).into_owned(),
    })
}

fn render(inspection: &Inspection, all: bool) -> String {
    let unknown = || "unknown".to_owned();
    let Inspection { stamp_version, stamp_time, .. } = inspection;
    let stamp = match (stamp_version, stamp_time) {
        (None, None) => unknown(),
        (version, time) => {
            let part = |part: &Option<String>| part.clone().unwrap_or_else(unknown);
            format!("{}, {}", part(version), part(time))
        }
    };
    let rows = [
        ["RoadRunner", &inspection.version.clone().unwrap_or_else(unknown)],
        ["module", &inspection.roadrunner],
        ["built by", if inspection.by_vx { "vx" } else { "unknown" }],
        ["stamp", &stamp],
        ["Go", &inspection.go_version],
        ["target", &inspection.target.clone().unwrap_or_else(unknown)],
        ["flags", &inspection.flags.join(" ")],
    ];
    let mut text = table(&rows.map(|row| row.map(str::to_owned)));
    text += &format!("\n{}\n", count(inspection.plugins.len() as u64, "plugin"));
    text += &modules(&inspection.plugins);
    let others = count(inspection.modules.len() as u64, "other module");
    if all {
        text += &format!("\n{others}\n{}", modules(&inspection.modules));
    } else {
        text += &format!("\n{others} (--all shows them)\n");
    }
    text
}

fn modules(modules: &[BinaryModule]) -> String {
    let rows: Vec<[String; 3]> = modules
        .iter()
        .map(|BinaryModule { name, module, version, replacement }| {
            let module = match replacement {
                Some(replacement) => format!("{module} => {replacement}"),
                None => module.clone(),
            };
            [format!("  {name}"), version.clone(), module]
        })
        .collect();
    table(&rows)
}
