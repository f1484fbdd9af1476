//! The documentation's pages: code blocks and links.

// Each test binary uses only a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

pub struct Page {
    /// Path from the repository root.
    pub name: String,
    pub text: String,
}

/// A fenced block of code.
#[derive(Debug, Clone)]
pub struct Block {
    pub language: String,
    pub text: String,
    /// Start of the block: PAGE:LINE.
    pub place: String,
    /// The HTML comment directly above, with instructions for these tests.
    pub remark: Option<String>,
}

/// The repository root.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Reads a page by its path from the root.
pub fn page(name: &str) -> Page {
    let text = fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Page { name: name.to_owned(), text }
}

/// All published pages: the book's and the others.
pub fn pages() -> Vec<Page> {
    let mut names: Vec<String> = fs::read_dir(top().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.extend(["README.md", "CONTRIBUTING.md", "examples/README.md"].map(str::to_owned));
    names.sort();
    names.iter().map(|name| page(name)).collect()
}

/// Whether a line matches a pattern in which `…` matches anything.
pub fn fits(shown: &str, line: &str) -> bool {
    let (shown, line) = (shown.trim(), line.trim());
    let mut parts = shown.split('…');
    let first = parts.next().unwrap();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    if !shown.contains('…') {
        return rest.is_empty();
    }
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap();
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Page {
    fn events(&self) -> impl Iterator<Item = (Event<'_>, std::ops::Range<usize>)> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter()
    }

    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, self.text[..offset].matches('\n').count() + 1)
    }

    /// The fenced code blocks, in order.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut remark: Option<String> = None;
        let mut open: Option<Block> = None;
        for (event, range) in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    let (language, place) = (language.to_string(), self.place(range.start));
                    open = Some(Block { language, text: String::new(), place, remark: remark.take() });
                }
                Event::Text(text) if open.is_some() => open.as_mut().unwrap().text.push_str(&text),
                Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
                Event::Html(text) => {
                    let text = text.trim();
                    let inner = text.strip_prefix("<!--").and_then(|text| text.strip_suffix("-->"));
                    remark = inner.map(|text| text.trim().to_owned());
                }
                Event::Start(Tag::HtmlBlock) | Event::End(TagEnd::HtmlBlock) => {}
                _ => remark = None,
            }
        }
        blocks
    }

    /// The link targets, each with its location.
    pub fn links(&self) -> Vec<(String, String)> {
        self.events()
            .filter_map(|(event, range)| match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    Some((dest_url.to_string(), self.place(range.start)))
                }
                _ => None,
            })
            .collect()
    }

    /// The heading anchors, as GitHub and mdBook generate them.
    pub fn anchors(&self) -> Vec<String> {
        let mut anchors = Vec::new();
        let mut heading: Option<String> = None;
        for (event, _) in self.events() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) if heading.is_some() => {
                    heading.as_mut().unwrap().push_str(&text);
                }
                Event::End(TagEnd::Heading(_)) => anchors.extend(heading.take().map(|text| anchor(&text))),
                _ => {}
            }
        }
        anchors
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
