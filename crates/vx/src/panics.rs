use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::Write as _,
    panic::{Location, PanicHookInfo},
};

/// Reports panics as internal errors.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        // Only literal messages are shown: a formatted one could contain a token.
        let literal = panic.payload().downcast_ref::<&'static str>().copied();
        let text = message(literal, panic.location(), &Backtrace::capture());
        let _ = anstream::stderr().write_all(text.as_bytes());
    }));
}

fn message(literal: Option<&'static str>, place: Option<&Location<'_>>, trace: &Backtrace) -> String {
    let mut text = format!("error: internal error in vx {}", env!("CARGO_PKG_VERSION"));
    if let Some(literal) = literal {
        let _ = write!(text, ": {literal}");
    }
    text.push('\n');
    if let Some(place) = place {
        let _ = writeln!(text, "  at {place}");
    }
    let _ =
        writeln!(text, "  this is a bug in vx; please report it at {}/issues", env!("CARGO_PKG_REPOSITORY"));
    if trace.status() == BacktraceStatus::Captured {
        let _ = writeln!(text, "{trace}");
    } else {
        text.push_str("  set RUST_BACKTRACE=1 for a backtrace\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_reported_without_formatted_messages() {
        let place = Location::caller();
        let text = message(Some("a literal"), Some(place), &Backtrace::disabled());
        assert!(text.contains("internal error in vx") && text.contains(": a literal\n"), "{text}");
        assert!(text.contains("panics.rs:") && text.contains("/issues"), "{text}");
        let without = message(None, Some(place), &Backtrace::disabled());
        assert!(without.starts_with(concat!(
            "error: internal error in vx ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        )));
    }
}
