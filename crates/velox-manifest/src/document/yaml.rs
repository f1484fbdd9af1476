use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::tree::{ConfigEntry, ConfigNode, ConfigValue, MAX_DEPTH};
use crate::Diagnostic;

/// The values that aliases (`*name`) may repeat: nested aliases multiply.
const MAX_ALIASED_NODES: usize = 10_000;

/// The values of a document: a configuration has hundreds, and each takes memory.
const MAX_NODES: usize = 200_000;

/// A merge key, as in `<<: *defaults` (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// Parses a YAML document, with aliases and merge keys resolved. A table may have the same key twice.
///
/// # Errors
/// The first syntax error, more than one document, or values without bounds: nested too deeply, too many, or repeated
/// by aliases too often.
pub fn parse_yaml(text: &str) -> Result<ConfigNode, Diagnostic> {
    let (skipped, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => (text.len() - body.len(), body),
        None => (0, text),
    };
    let mut tree = TreeBuilder {
        offsets: CharOffsets::new(body, skipped),
        open: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
        nodes: 0,
        documents: Vec::new(),
    };
    for event in Parser::new_from_str(body) {
        let (event, span) = event.map_err(|error| {
            let at = tree.offsets.byte(error.marker().index());
            let end = text.ceil_char_boundary((at + 1).min(text.len()));
            let before = text.get(..end).unwrap_or_default();
            let indentation = before.rsplit('\n').next().unwrap_or_default();
            let error = Diagnostic::error(format!("invalid YAML: {}", error.info())).at(at..end);
            match indentation.trim_start_matches(' ').starts_with('\t') {
                true => error.help("indent with spaces"),
                false => error,
            }
        })?;
        tree.event(event, &span)?;
    }
    let mut documents = tree.documents.into_iter();
    let first = documents.next().unwrap_or(ConfigNode { value: ConfigValue::Null, span: None });
    match documents.find(|document| !document.is_unset()) {
        Some(second) => Err(Diagnostic::error("a configuration is a single YAML document")
            .at(second.span)
            .label("second document")
            .help("remove the `---` between the documents, or write each of them to its own file")),
        None => Ok(first),
    }
}

/// The positions of characters, which the parser counts, in bytes.
struct CharOffsets {
    /// `None` for ASCII.
    bytes: Option<Vec<usize>>,
    length: usize,
    skipped: usize,
}

impl CharOffsets {
    fn new(text: &str, skipped: usize) -> Self {
        let bytes = (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self { bytes, length: text.len(), skipped }
    }

    fn byte(&self, index: usize) -> usize {
        let at = match &self.bytes {
            Some(bytes) => bytes.get(index).copied().unwrap_or(self.length),
            None => index.min(self.length),
        };
        self.skipped + at
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

/// A collection whose end is not reached.
struct OpenCollection {
    start: usize,
    anchor: usize,
    content: OpenContent,
}

enum OpenContent {
    Sequence(Vec<ConfigNode>),
    /// The entries, and the key whose value follows.
    Mapping(Vec<ConfigEntry>, Option<(String, Range<usize>)>),
}

struct TreeBuilder {
    offsets: CharOffsets,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, ConfigNode>,
    aliased: usize,
    nodes: usize,
    documents: Vec<ConfigNode>,
}

impl TreeBuilder {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Diagnostic> {
        let range = self.offsets.range(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                if let Some(OpenCollection { content: OpenContent::Mapping(_, key @ None), .. }) =
                    self.open.last_mut()
                {
                    *key = Some((text.into_owned(), range));
                    return Ok(());
                }
                let value = scalar(text, style, tag.as_ref(), &range)?;
                self.close(ConfigNode { value, span: Some(range) }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(range, anchor, OpenContent::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.open(range, anchor, OpenContent::Mapping(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(OpenCollection { start, anchor, content }) = self.open.pop() else { return Ok(()) };
                let (value, last) = match content {
                    OpenContent::Sequence(nodes) => {
                        let last = nodes.last().and_then(|node| node.span.clone());
                        (ConfigValue::Array(nodes), last)
                    }
                    OpenContent::Mapping(entries, _) => {
                        let last = entries.last().and_then(|entry| entry.node.span.clone());
                        (ConfigValue::Table(merged(entries)), last)
                    }
                };
                // The end of a block is the start of the next token, lines below.
                let end = last.filter(|_| range.is_empty()).map_or(range.end, |last| last.end);
                self.close(ConfigNode { value, span: Some(start..end.max(start)) }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Diagnostic::error("unknown YAML alias").at(range));
                };
                self.aliased += size(&node);
                if self.aliased > MAX_ALIASED_NODES {
                    return Err(Diagnostic::error("too many values by YAML aliases").at(range));
                }
                if self.expects_key() {
                    return Err(no_key(range));
                }
                self.close(node, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(OpenCollection { content: OpenContent::Mapping(_, None), .. }))
    }

    fn open(&mut self, range: Range<usize>, anchor: usize, content: OpenContent) -> Result<(), Diagnostic> {
        if self.expects_key() {
            return Err(no_key(range));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Diagnostic::error("invalid YAML: too many levels").at(range));
        }
        self.open.push(OpenCollection { start: range.start, anchor, content });
        Ok(())
    }

    fn close(&mut self, node: ConfigNode, anchor: usize) -> Result<(), Diagnostic> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(
                Diagnostic::error(format!("invalid YAML: more than {MAX_NODES} values")).at(node.span)
            );
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.documents.push(node),
            Some(OpenContent::Sequence(nodes)) => nodes.push(node),
            Some(OpenContent::Mapping(entries, key)) => {
                if let Some((key, span)) = key.take() {
                    entries.push(ConfigEntry { key, span: Some(span), node });
                }
            }
        }
        Ok(())
    }
}

fn no_key(range: Range<usize>) -> Diagnostic {
    Diagnostic::error("invalid YAML: a key must be a string").at(range)
}

fn size(node: &ConfigNode) -> usize {
    match &node.value {
        ConfigValue::Array(nodes) => 1 + nodes.iter().map(size).sum::<usize>(),
        ConfigValue::Table(entries) => 1 + entries.iter().map(|entry| size(&entry.node)).sum::<usize>(),
        _ => 1,
    }
}

/// Resolves merge keys: the keys of the merged tables that this one doesn't have itself.
fn merged(entries: Vec<ConfigEntry>) -> Vec<ConfigEntry> {
    if entries.iter().all(|entry| entry.key != MERGE) {
        return entries;
    }
    let (merges, mut entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == MERGE);
    let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let tables = match merge.node.value {
            ConfigValue::Array(nodes) => nodes,
            value => vec![ConfigNode { value, span: None }],
        };
        for table in tables {
            let ConfigValue::Table(others) = table.value else { continue };
            entries.extend(others.into_iter().filter(|other| known.insert(other.key.clone())));
        }
    }
    entries
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Cow<'_, Tag>>,
    range: &Range<usize>,
) -> Result<ConfigValue, Diagnostic> {
    let text = text.into_owned();
    if style != ScalarStyle::Plain {
        return Ok(ConfigValue::Text(text));
    }
    let tag = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_ref());
    Ok(match (tag, plain(text)) {
        (None, value)
        | (Some("null"), value @ ConfigValue::Null)
        | (Some("bool"), value @ ConfigValue::Boolean(_))
        | (Some("int"), value @ ConfigValue::Integer(_))
        | (Some("float"), value @ ConfigValue::Float(_)) => value,
        (Some("float"), ConfigValue::Integer(text)) => ConfigValue::Float(text),
        (Some("str"), ConfigValue::Text(text) | ConfigValue::Integer(text) | ConfigValue::Float(text)) => {
            ConfigValue::Text(text)
        }
        (Some("str"), ConfigValue::Boolean(value)) => ConfigValue::Text(value.to_string()),
        (Some("str"), ConfigValue::Null) => ConfigValue::Text(String::new()),
        (Some(_), _) => {
            return Err(Diagnostic::error("invalid YAML: the value doesn't have the type of its tag")
                .at(range.clone()));
        }
    })
}

/// The value of a scalar without quotes (<https://yaml.org/spec/1.2.2/#103-core-schema>).
fn plain(text: String) -> ConfigValue {
    let has_digits =
        |digits: &str, radix| !digits.starts_with(['+', '-']) && i64::from_str_radix(digits, radix).is_ok();
    let is_integer = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => has_digits(digits, 16),
        (_, Some(digits)) => has_digits(digits, 8),
        (None, None) => text.parse::<i64>().is_ok(),
    };
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => ConfigValue::Null,
        "true" | "True" | "TRUE" => ConfigValue::Boolean(true),
        "false" | "False" | "FALSE" => ConfigValue::Boolean(false),
        _ if is_integer => ConfigValue::Integer(text),
        ".nan" | ".NaN" | ".NAN" => ConfigValue::Float(text),
        // Rust also parses `inf` and `nan`.
        _ if matches!(unsigned, ".inf" | ".Inf" | ".INF")
            || (text.bytes().any(|byte| byte.is_ascii_digit()) && text.parse::<f64>().is_ok()) =>
        {
            ConfigValue::Float(text)
        }
        _ => ConfigValue::Text(text),
    }
}
