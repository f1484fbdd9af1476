//! Questions on a terminal. Each answer is `None` where the user leaves (Escape).

use std::io;

use dialoguer::{
    Error, Input, MultiSelect, Select,
    console::Term,
    theme::{ColorfulTheme, SimpleTheme, Theme},
};

use crate::settings::Terminal;

/// One of several; the first is the default.
pub(crate) fn one(terminal: Terminal, question: &str, items: &[String]) -> io::Result<Option<usize>> {
    let theme = theme(terminal);
    let asked = Select::with_theme(&*theme).with_prompt(question).items(items).default(0).interact_opt();
    answered(asked)
}

/// Any number of things: a name, a line about it, and whether it is chosen beforehand.
pub(crate) fn many(
    terminal: Terminal,
    title: &str,
    items: &[(String, String, bool)],
) -> io::Result<Option<Vec<usize>>> {
    let width = items.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or_default();
    // A line that is broken would be drawn wrongly.
    let room = usize::from(Term::stderr().size().1).saturating_sub(8).max(width);
    let lines = items.iter().map(|(name, about, chosen)| {
        let line: String = format!("{name:width$}  {about}").chars().take(room).collect();
        (line.trim_end().to_owned(), *chosen)
    });
    let theme = theme(terminal);
    let asked = MultiSelect::with_theme(&*theme)
        .with_prompt(format!("{title} (space chooses, enter goes on)"))
        .items_checked(lines)
        // Its own report repeats the whole lines.
        .report(false)
        .interact_opt();
    let picked = answered(asked)?;
    if let Some(picked) = &picked {
        let names: Vec<&str> =
            picked.iter().filter_map(|index| items.get(*index)).map(|(name, ..)| name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Term::stderr().write_line(&format!("  {title}: {names}"))?;
    }
    Ok(picked)
}

/// A line of text.
pub(crate) fn line(terminal: Terminal, question: &str) -> io::Result<Option<String>> {
    let theme = theme(terminal);
    answered(Input::<String>::with_theme(&*theme).with_prompt(question).interact_text().map(Some))
}

fn theme(terminal: Terminal) -> Box<dyn Theme> {
    match terminal.unicode && terminal.color {
        true => Box::new(ColorfulTheme::default()),
        false => Box::new(SimpleTheme),
    }
}

fn answered<T>(asked: Result<Option<T>, Error>) -> io::Result<Option<T>> {
    // Whatever happened, the cursor comes back.
    let _ = Term::stderr().show_cursor();
    match asked {
        Ok(answer) => Ok(answer),
        Err(Error::IO(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(Error::IO(error)) => Err(error),
    }
}
