//! Validation of single values, for API requests.

pub use crate::refs::{
    InvalidValue, full_version, go_selection, majors_agree, module_path, replaced, replacement, requested,
    with_v,
};

/// Whether a configured token can be one, so that it must not appear in messages: a shorter text, and a word of
/// letters only, is a placeholder that occurs in other words. Tokens of GitHub and GitLab have at least 20 characters.
#[must_use]
pub fn can_be_token(text: &str) -> bool {
    const MIN_TOKEN_LENGTH: usize = 8;
    const MIN_WORD_TOKEN_LENGTH: usize = 20;
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
    text.len() >= if is_word { MIN_WORD_TOKEN_LENGTH } else { MIN_TOKEN_LENGTH }
}
