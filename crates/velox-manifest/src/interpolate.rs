//! Interpolation of `$NAME`, `${NAME}` and `${NAME:-default}`. `$$` is a dollar sign.
//!
//! A name is what Go's [os.Expand](https://pkg.go.dev/os#Expand) takes for one: letters, digits and `_`. Go also expands
//! the special variables of a shell (`$*`, `$#`, `$@`, `$!`, `$?`, `$-`, `$0` to `$9`), which no environment has, and so
//! removes them. Here they stay as they are, as every other `$` does.

/// Why a value can't be interpolated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InterpolationError {
    /// The variable has neither a value nor a default.
    Unset(String),
    /// A `${` without a closing `}`.
    Unclosed,
    /// An invalid variable name.
    Name,
}

pub(crate) fn interpolate(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, InterpolationError> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (variable, after) = after.split_once('}').ok_or(InterpolationError::Unclosed)?;
            result.push_str(&value(variable, environment)?);
            rest = after;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if is_name(name) {
                result.push_str(&value(name, environment)?);
                rest = after;
            } else {
                result.push('$');
            }
        }
    }
    result.push_str(rest);
    Ok(result)
}

/// The name of the only variable of which a text consists: `$NAME` or `${NAME}`.
pub(crate) fn only_variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').map_or(Some(name), |name| name.strip_suffix('}'))?;
    is_name(name).then_some(name)
}

/// Whether a value only says that there is none, such as the default of an `ARG` in a Dockerfile.
pub(crate) fn is_placeholder(value: &str) -> bool {
    const PLACEHOLDERS: [&str; 8] =
        ["", "undefined", "null", "nil", "none", "unset", "changeme", "placeholder"];
    PLACEHOLDERS.iter().any(|placeholder| placeholder.eq_ignore_ascii_case(value.trim()))
}

/// The value of a variable. As in a shell, the default also applies to an empty value.
fn value(variable: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, InterpolationError> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    if !is_name(name) {
        return Err(InterpolationError::Name);
    }
    match (environment(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(InterpolationError::Unset(name.to_owned())),
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
