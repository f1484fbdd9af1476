//! Prompts on a terminal. The result is `None` if the user cancels with Escape or Ctrl-C.

use std::io;

use dialoguer::{
    Error, Input, MultiSelect, Select,
    console::Term,
    theme::{ColorfulTheme, SimpleTheme, Theme},
};

use crate::settings::Terminal;

pub(super) struct Choice {
    pub(super) name: String,
    pub(super) about: String,
    pub(super) is_selected: bool,
}

/// Selects one item; the first is the default.
pub(super) fn select(terminal: Terminal, prompt: &str, items: &[String]) -> io::Result<Option<usize>> {
    let theme = theme(terminal);
    finish(Select::with_theme(&*theme).with_prompt(prompt).items(items).default(0).interact_opt())
}

pub(super) fn multi_select(
    terminal: Terminal,
    title: &str,
    choices: &[Choice],
) -> io::Result<Option<Vec<usize>>> {
    let width = choices.iter().map(|choice| choice.name.chars().count()).max().unwrap_or_default();
    // dialoguer redraws wrapped lines incorrectly.
    let columns = usize::from(Term::stderr().size().1).saturating_sub(8).max(width);
    let items = choices.iter().map(|Choice { name, about, is_selected }| {
        let line: String = format!("{name:width$}  {about}").chars().take(columns).collect();
        (line.trim_end().to_owned(), *is_selected)
    });
    let theme = theme(terminal);
    let selected = MultiSelect::with_theme(&*theme)
        .with_prompt(format!("{title} (space to select, enter to confirm)"))
        .items_checked(items)
        // The built-in report repeats whole lines.
        .report(false)
        .interact_opt();
    let selected = finish(selected)?;
    if let Some(indices) = &selected {
        let names = indices.iter().filter_map(|index| Some(choices.get(*index)?.name.as_str()));
        let names: Vec<&str> = names.collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Term::stderr().write_line(&format!("  {title}: {names}"))?;
    }
    Ok(selected)
}

pub(super) fn input(terminal: Terminal, prompt: &str) -> io::Result<Option<String>> {
    let theme = theme(terminal);
    finish(Input::<String>::with_theme(&*theme).with_prompt(prompt).interact_text().map(Some))
}

fn theme(terminal: Terminal) -> Box<dyn Theme> {
    match terminal.unicode && terminal.color {
        true => Box::new(ColorfulTheme::default()),
        false => Box::new(SimpleTheme),
    }
}

fn finish<T>(result: Result<Option<T>, Error>) -> io::Result<Option<T>> {
    // The cursor stays hidden after an error.
    let _ = Term::stderr().show_cursor();
    match result {
        Ok(answer) => Ok(answer),
        Err(Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(Error::IO(error)) => Err(error),
    }
}
