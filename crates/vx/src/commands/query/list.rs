use velox_manifest::catalogue::ROADRUNNER_MODULE;
use velox_query::{ListedPlugin, PluginList};

use crate::{
    cli::{OutputFormat, query::ListCommand},
    commands::session::Session,
    report::{
        self,
        text::{clean, table},
    },
    settings::Settings,
    status::CommandResult,
};

pub(crate) async fn list(settings: Settings, arguments: ListCommand) -> CommandResult {
    let session = Session::open(settings, arguments.project)?;
    let list = velox_query::list(&session.request, session.reporter(), session.cancel.clone()).await;
    let mut list = list.map_err(|error| session.failed(&error))?;
    if !arguments.all {
        list.plugins.retain(|plugin| plugin.asked.is_some() || plugin.locked.is_some());
    }
    match session.format {
        OutputFormat::Json => session.print(&report::event("list", &list)),
        OutputFormat::Human => {
            if !list.has_lock {
                session.note("no velox.lock found; create it with `vx lock`".to_owned());
            } else if !list.differences.is_empty() {
                session.note("velox.lock is out of date; update it with `vx lock`".to_owned());
            }
            if let Some(cause) = &list.release_unknown {
                session.note(format!("failed to read the RoadRunner release: {cause}"));
            }
            session.print(&clean(&render(&list)))
        }
    }
}

fn render(list: &PluginList) -> String {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![["NAME", "REQUESTED", "LOCKED", "RELEASED", "MODULE"].map(str::to_owned)];
    rows.push([
        "roadrunner".to_owned(),
        or_dash(&list.roadrunner_asked),
        or_dash(&list.roadrunner_locked),
        or_dash(&list.release),
        ROADRUNNER_MODULE.to_owned(),
    ]);
    for plugin in &list.plugins {
        let ListedPlugin { name, module, asked, locked, released, replacement, added } = plugin;
        let requested = if *added { "(added)".to_owned() } else { or_dash(asked) };
        let module = match replacement {
            Some(replacement) => format!("{module} => {replacement}"),
            None => module.clone(),
        };
        rows.push([name.clone(), requested, or_dash(locked), or_dash(released), module]);
    }
    table(&rows)
}
