//! The resolver; its stages are methods in the other modules, `resolution` first.

use crate::{
    context::{BuildContext, BuildTools},
    lock::Lock,
    toolchain::Toolchain,
};

/// Resolves the refs of a manifest.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub(crate) context: &'a BuildContext<'a>,
    pub(crate) tools: &'a BuildTools,
    /// Newer than that of `tools` if a resolved module requires it.
    pub(crate) go: &'a Toolchain,
    /// The previous lock: its versions are kept where the requested refs are unchanged.
    pub(crate) previous: Option<&'a Lock>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        context: &'a BuildContext<'a>,
        tools: &'a BuildTools,
        previous: Option<&'a Lock>,
    ) -> Self {
        Self { context, tools, go: &tools.go, previous }
    }
}
