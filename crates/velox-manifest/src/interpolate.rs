//! Interpolation of `${NAME}` and `${NAME:-default}`. `$$` is a dollar sign, and so is any other `$`.

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
            result.push('$');
        }
    }
    result.push_str(rest);
    Ok(result)
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
