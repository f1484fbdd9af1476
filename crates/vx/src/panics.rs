use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Write as _,
    io::Write as _,
    panic::{Location, PanicHookInfo},
};

/// Makes a defect of vx look like what it is: a message that asks for a report.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        // A formatted message may carry anything, tokens included; a literal one can't.
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
    let _ = writeln!(
        text,
        "  This is a defect of vx, not of your configuration; please report it at {}/issues",
        env!("CARGO_PKG_REPOSITORY")
    );
    if trace.status() == BacktraceStatus::Captured {
        let _ = writeln!(text, "{trace}");
    } else {
        text.push_str("  RUST_BACKTRACE=1 shows where it came from\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_asks_for_a_report_and_keeps_formatted_messages_to_itself() {
        let place = Location::caller();
        let told = message(Some("a literal"), Some(place), &Backtrace::disabled());
        assert!(told.contains("internal error in vx") && told.contains(": a literal\n"), "{told}");
        assert!(told.contains("panics.rs:") && told.contains("/issues"), "{told}");
        let kept = message(None, Some(place), &Backtrace::disabled());
        assert!(kept.starts_with(concat!("error: internal error in vx ", env!("CARGO_PKG_VERSION"), "\n")));
    }
}
