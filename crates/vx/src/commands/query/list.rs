use std::{process::ExitCode, sync::Arc};

use velox_build::{BuildOptions, Event, Goal, Note};
use velox_query::{ListedPlugin, PluginList};

use crate::{
    cli::{self, Format},
    commands::session::Prepared,
    report::{
        self,
        text::{clean, table},
    },
    settings::Settings,
};

/// `vx list`.
pub(crate) async fn list(settings: Settings, arguments: cli::List) -> ExitCode {
    let prepared = match Prepared::new(settings, arguments.server, |_| Goal::Plan, BuildOptions::default()) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    let Prepared { request, report, cancel, .. } = &prepared;
    let mut list = match velox_query::list(request, Arc::clone(report) as _, cancel.clone()).await {
        Ok(list) => list,
        Err(error) => return prepared.failed(&error),
    };
    if !arguments.all {
        list.plugins.retain(|plugin| plugin.asked.is_some() || plugin.locked.is_some());
    }
    match prepared.format {
        Format::Json => prepared.answer(&report::event("list", &list)),
        Format::Human => {
            for text in notes(&list) {
                report.report(Event::Note(Note::Text { text }));
            }
            prepared.answer(&clean(&shown(&list)))
        }
    }
}

/// What the table can't say.
fn notes(list: &PluginList) -> Vec<String> {
    let mut notes = Vec::new();
    if !list.has_lock {
        notes.push("there is no lock yet: `vx lock` makes one".to_owned());
    } else if !list.differences.is_empty() {
        notes.push(
            "the lock doesn't say what the configuration asks for: `vx lock` brings it up to date".to_owned(),
        );
    }
    if let Some(why) = &list.release_unknown {
        notes.push(format!("what RoadRunner was released with isn't known: {why}"));
    }
    notes
}

fn shown(list: &PluginList) -> String {
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![["NAME", "ASKED", "LOCKED", "RELEASED", "MODULE"].map(str::to_owned)];
    rows.push([
        "roadrunner".to_owned(),
        or_dash(&list.roadrunner_asked),
        or_dash(&list.roadrunner_locked),
        or_dash(&list.release),
        "github.com/roadrunner-server/roadrunner".to_owned(),
    ]);
    for plugin in &list.plugins {
        let ListedPlugin { name, module, asked, locked, released, replacement, added } = plugin;
        let asked = if *added { "(added)".to_owned() } else { or_dash(asked) };
        let module = match replacement {
            Some(replacement) => format!("{module} => {replacement}"),
            None => module.clone(),
        };
        rows.push([name.clone(), asked, or_dash(locked), or_dash(released), module]);
    }
    table(&rows)
}
