/// Parses a leading Go string literal (<https://go.dev/ref/spec#String_literals>); also returns the rest.
pub(crate) fn unquote(text: &str) -> Option<(String, &str)> {
    if let Some(text) = text.strip_prefix('`') {
        let (literal, rest) = text.split_once('`')?;
        return Some((literal.replace('\r', ""), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((String::from_utf8_lossy(&bytes).into_owned(), rest)),
            '\n' => return None,
            '\\' => rest = unescape(rest, &mut bytes)?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Parses an escape sequence after its backslash.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let escape = text.bytes().next()?;
    let (start, digits, radix) = match escape {
        b'x' => (1, 2, 16),
        b'u' => (1, 4, 16),
        b'U' => (1, 8, 16),
        b'0'..=b'7' => (0, 3, 8),
        _ => {
            bytes.push(match escape {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                b'\\' | b'"' => escape,
                _ => return None,
            });
            return text.get(1..);
        }
    };
    let number = text.get(start..start + digits)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let code = u32::from_str_radix(number, radix).ok()?;
    match escape {
        b'u' | b'U' => bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => bytes.push(u8::try_from(code).ok()?),
    }
    text.get(start + digits..)
}
