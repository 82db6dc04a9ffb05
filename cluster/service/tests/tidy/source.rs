//! Looks at Rust source just closely enough to judge its form.
//! Invariant: comments, strings and characters are blanked before anything is judged, and line breaks stay,
//! so that a line found is a line of the file.

/// The code with everything else replaced by spaces.
pub(crate) fn blank(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let length = other_than_code(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (skipped, after) = rest.split_at(length);
            code.extend(
                skipped
                    .chars()
                    .map(|skipped| if skipped == '\n' { '\n' } else { ' ' }),
            );
            rest = after;
        }
    }
    code
}

/// The bytes of the comment, string or character that begins here; 0 when code does.
fn other_than_code(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return 1 + until_quote(inside, '"');
    }
    let in_word = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
    if !in_word && let Some(length) = raw_string(rest) {
        return length;
    }
    let Some(after) = rest.strip_prefix('\'') else {
        return 0;
    };
    let mut characters = after.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => 1 + until_quote(after, '\''),
        (Some(one), Some('\'')) => 2 + one.len_utf8(),
        // A lifetime.
        _ => 0,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    let begin = rest.len() - inside.len();
    let end = format!("\"{}", "#".repeat(hashes));
    Some(
        inside
            .find(&end)
            .map_or(rest.len(), |found| begin + found + end.len()),
    )
}

fn until_quote(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    inside.len()
}

/// All words of the code with their lines.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(index, line)| {
        let words = line.split(|character: char| !character.is_alphanumeric() && character != '_');
        words
            .filter(|word| !word.is_empty())
            .map(move |word| (index + 1, word))
    })
}

pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// The functions that have a body, from the line of `fn` to that of the closing brace.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let in_word = code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let name: String = code[at + 3..]
            .chars()
            .take_while(|character| character.is_alphanumeric() || *character == '_')
            .collect();
        if in_word || name.is_empty() {
            continue;
        }
        if let Some(length) = body_end(&code[at..]) {
            let breaks = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
            found.push(Function {
                name,
                line: 1 + breaks(&code[..at]),
                lines: 1 + breaks(&code[at..at + length]),
            });
        }
    }
    found
}

fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b';' if braces == 0 && brackets == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && brackets == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
