//! The graph as a diagram: an arrow from each plugin to those that get it, dashed where they only collect it.

use super::PluginGraph;

impl PluginGraph {
    /// A Graphviz graph.
    #[must_use]
    pub fn to_dot(&self) -> String {
        let mut text = "digraph plugins {\n\trankdir=LR;\n\tnode [shape=box];\n".to_owned();
        for plugin in &self.plugins {
            text += &format!("\t{};\n", quoted(&plugin.label));
        }
        for edge in self.edges() {
            let (Some(from), Some(to)) = (self.plugins.get(edge.from), self.plugins.get(edge.to)) else {
                continue;
            };
            let style = if edge.is_required { "" } else { " [style=dashed]" };
            text += &format!("\t{} -> {}{style};\n", quoted(&from.label), quoted(&to.label));
        }
        text + "}\n"
    }

    /// A Mermaid flowchart.
    #[must_use]
    pub fn to_mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (index, plugin) in self.plugins.iter().enumerate() {
            // `#quot;` is the only escape of a label.
            text += &format!("    p{index}[\"{}\"]\n", plugin.label.replace('"', "#quot;"));
        }
        for edge in self.edges() {
            let arrow = if edge.is_required { "-->" } else { "-.->" };
            text += &format!("    p{} {arrow} p{}\n", edge.from, edge.to);
        }
        text
    }
}

fn quoted(label: &str) -> String {
    format!("\"{}\"", label.replace('\\', "\\\\").replace('"', "\\\""))
}
