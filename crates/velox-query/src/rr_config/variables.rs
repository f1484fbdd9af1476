//! Variables in values, as RoadRunner's plugin config replaces them (`expand.go`), and files that set them.

use std::collections::BTreeMap;

use velox_manifest::{ConfigNode, ConfigValue};

const DEFAULT: &str = ":-";

/// Replaces variables in the texts of tables, and of lists in tables. A text with a variable that is not set stays.
pub(super) fn expand_tree(node: &mut ConfigNode, variables: &BTreeMap<String, String>) {
    match &mut node.value {
        ConfigValue::Text(text) => {
            if let Some(value) = expand(text, variables) {
                *text = value;
            }
        }
        ConfigValue::Array(nodes) => {
            let texts = nodes.iter_mut().filter(|node| matches!(node.value, ConfigValue::Text(_)));
            texts.for_each(|node| expand_tree(node, variables));
        }
        ConfigValue::Table(entries) => {
            entries.iter_mut().for_each(|entry| expand_tree(&mut entry.node, variables));
        }
        _ => {}
    }
}

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}`; `None` if a variable is not set and has no default.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded += before;
        if after.is_empty() {
            expanded.push('$');
        }
        let (name, length) = shell_name(after);
        if !name.is_empty() {
            // With a default in the text, each variable needs one.
            let value = match text.contains(DEFAULT).then(|| name.split_once(DEFAULT)) {
                None => variables.get(name)?.as_str(),
                Some(Some((key, default))) if !default.contains(DEFAULT) => variables
                    .get(key)
                    .map(String::as_str)
                    .filter(|value| !value.is_empty())
                    .unwrap_or(default),
                Some(_) => return Some(String::new()),
            };
            expanded += value;
        } else if length == 0 && !after.is_empty() {
            expanded.push('$');
        }
        rest = after.get(length..).unwrap_or_default();
    }
    Some(expanded + rest)
}

/// The name of the variable at the start of a text, and the length of its syntax.
fn shell_name(text: &str) -> (&str, usize) {
    let is_special = |c: char| c.is_ascii_digit() || "*#$@!?-".contains(c);
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.find('}') {
            Some(end) => (inner.get(..end).unwrap_or_default(), end + 2),
            None => ("", 1),
        };
    }
    if text.starts_with(is_special) {
        return (text.get(..1).unwrap_or_default(), 1);
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    (text.get(..end).unwrap_or_default(), end)
}

/// Adds the variables of an environment file (`NAME=value`, with comments, quotes and `export`) that are not set.
pub(super) fn load(text: &str, variables: &mut BTreeMap<String, String>) {
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            let inner = value.strip_prefix(quote)?;
            inner.split_once(quote).map(|(inner, _)| inner)
        });
        let plain = || value.split_once(" #").map_or(value, |(value, _)| value).trim_end();
        let value = quoted.unwrap_or_else(plain).to_owned();
        variables.entry(name.trim().to_owned()).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("A", "1"), ("EMPTY", ""), ("L_1", "ä")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// The results are those of `ExpandVal` in github.com/roadrunner-server/config/v5 v5.1.9.
    #[test]
    fn variables_are_replaced_as_roadrunner_replaces_them() {
        for (text, expanded) in [
            ("plain", "plain"),
            ("$A", "1"),
            ("${A}x$A-", "1x1-"),
            ("ö${L_1}ö", "öäö"),
            ("tcp://127.0.0.1:${PORT:-6001}", "tcp://127.0.0.1:6001"),
            ("${A:-2}", "1"),
            ("${EMPTY:-2}", "2"),
            ("${EMPTY}", ""),
            ("${NO:-}", ""),
            ("${A}${NO:-x}", ""),
            ("${A:-x:-y}", ""),
            ("5 $", "5 $"),
            ("$ 5", "$ 5"),
            ("${}x", "x"),
            ("${A", "A"),
        ] {
            assert_eq!(expand(text, &variables()).as_deref(), Some(expanded), "{text}");
        }
        for text in ["$NO", "${NO}", "a $1"] {
            assert_eq!(expand(text, &variables()), None, "{text}");
        }
    }

    #[test]
    fn environment_files_set_what_is_not_set() {
        let mut variables = variables();
        load("# x=1\nA=2\nexport B = 'b c' # d\nC=\"x#y\"\nD=e #f\nnothing\n\nE=\n", &mut variables);
        let value = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(value("A"), Some("1"));
        assert_eq!(
            (value("B"), value("C"), value("D"), value("E")),
            (Some("b c"), Some("x#y"), Some("e"), Some(""))
        );
        assert_eq!(variables.len(), 7);
    }
}
