//! Generates docs/commands.md from the help texts, and checks their examples.

use std::{fmt::Write as _, fs, path::Path};

use clap::{Command, CommandFactory, Parser};

use crate::cli::Cli;

#[test]
fn the_page_of_commands_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/commands.md");
    let expected = markdown();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&page, &expected).unwrap();
    }
    let is_current = fs::read_to_string(&page).unwrap_or_default() == expected;
    assert!(is_current, "docs/commands.md differs from the help texts; update it with `make book`");
}

#[test]
fn the_examples_in_help_texts_are_right_usage() {
    for command in commands(&command()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            let line = line.trim().trim_start_matches("$ ");
            let Some(words) = line.starts_with("vx ").then(|| shlex::split(line)).flatten() else { continue };
            // Stop at comments, pipes and redirections.
            let arguments =
                words.into_iter().take_while(|word| !matches!(&**word, "#" | "|" | "&&" | ">" | ">>"));
            if let Err(error) = Cli::try_parse_from(arguments) {
                assert!(!error.use_stderr(), "`vx {}`: {line}\n{error}", command.get_name());
            }
        }
    }
}

/// The command line with inherited arguments.
fn command() -> Command {
    let mut command = Cli::command().term_width(100);
    command.build();
    command
}

/// The command and its visible subcommands, depth first.
fn commands(command: &Command) -> Vec<Command> {
    let visible =
        command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help");
    std::iter::once(command.clone()).chain(visible.flat_map(commands)).collect()
}

/// A table of commands, and the help text of each.
fn markdown() -> String {
    let mut text = String::from(
        "<!-- Made from the program's help texts by `make book`. -->\n\n# Command reference\n\n\
         The help texts of all commands, as `vx help COMMAND` and `vx COMMAND --help` print them.\n\n\
         | command | description |\n|---|---|\n",
    );
    let mut sections = String::new();
    for mut command in commands(&command()) {
        let name = command.get_bin_name().unwrap_or("vx").to_owned();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "| [`{name}`](#{}) | {about} |", name.replace(' ', "-"))
            .expect("a string is writable");
        let help = command.render_long_help().to_string();
        let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        write!(sections, "\n## `{name}`\n\n```text\n{}\n```\n", help.trim_end())
            .expect("a string is writable");
    }
    text + &sections
}
