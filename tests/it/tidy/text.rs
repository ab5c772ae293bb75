//! Reading Rust source as text: what is code, what only tests see, which words and paths it names.
//!
//! Invariant: blanking keeps every line where it is, so positions mean the same before and after.

/// Replaces comments and the inside of literals by spaces; line breaks stay.
pub(super) fn blank(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let taken = if is_word(before) {
            None
        } else {
            literal_length(rest)
        };
        let hidden = comment_length(rest).or(taken);
        let length = hidden.unwrap_or(first.len_utf8());
        let (head, tail) = rest.split_at(length);
        if hidden.is_some() {
            let blanks = head.chars().map(|c| if c == '\n' { '\n' } else { ' ' });
            blanked.extend(blanks);
            before = ' ';
        } else {
            blanked.push(first);
            before = first;
        }
        rest = tail;
    }
    blanked
}

/// Bytes of the comment that starts here.
fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    let mut at = 0;
    while let Some(pair) = text.as_bytes().get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

/// Bytes of the string or character literal that starts here, prefix and quotes included.
fn literal_length(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let rest = text.strip_prefix(prefix);
        let is_raw = prefix.ends_with('r');
        rest.is_some_and(|rest| {
            rest.starts_with('"')
                || (is_raw && rest.trim_start_matches('#').starts_with('"'))
                || (!is_raw && *prefix != "c" && rest.starts_with('\''))
        })
    })?;
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.find('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let found = body[hashes + 1..].find(&end);
        return Some(found.map_or(text.len(), |at| prefix.len() + hashes + 1 + at + end.len()));
    }
    let quote = body.chars().next()?;
    let mut characters = body.char_indices().skip(1);
    let mut inside = 0;
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return (inside > 0 || quote == '"').then_some(prefix.len() + at + 1);
        } else if quote == '\'' && inside > 0 {
            // A lifetime: two characters and still no closing quote.
            return None;
        }
        inside += 1;
    }
    None
}

/// Removes each `#[cfg(test)]` item that has a body.
pub(super) fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(['{', ';']).map_or(rest.len(), |open| {
            if rest.as_bytes()[open] == b';' {
                open + 1
            } else {
                open + block_length(&rest[open..])
            }
        });
        rest = &rest[end..];
    }
    kept + rest
}

/// Bytes of the block whose opening brace starts the text.
fn block_length(text: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Identifiers, keywords and numbers.
pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character| !is_word(character))
        .filter(|word| !word.is_empty())
}

/// Names of the macros that are called.
pub(super) fn macros(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices('!').filter_map(|(at, _)| {
        let called = code[at + 1..].trim_start();
        let name = code[..at].rsplit(|c| !is_word(c)).next()?;
        called.starts_with(['(', '[', '{']).then_some(name)
    })
}

/// The most `super::` in a row.
pub(super) fn climbs(code: &str) -> usize {
    let code: String = code.split_whitespace().collect();
    let mut most = 0;
    let mut rest = &code[..];
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut climbed = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, climbed) = (after, climbed + 1);
        }
        most = most.max(climbed);
    }
    most
}

/// Every path below `root::`, those inside braces one by one, without the root.
pub(super) fn paths(code: &str, root: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code.replace(" ::", "::").replace(":: ", "::");
    let start = format!("{root}::");
    for (at, _) in code.match_indices(&start) {
        let is_whole = !code[..at].ends_with(|c| is_word(c) || c == ':');
        if is_whole {
            read_tree(&code[at + start.len()..], &[], &mut found);
        }
    }
    found
}

/// Reads one path or one braced list of paths; what follows it.
fn read_tree<'a>(text: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut list) = text.strip_prefix('{') {
        loop {
            list = list.trim_start_matches([' ', ',']);
            if let Some(rest) = list.strip_prefix('}') {
                return rest;
            }
            let rest = read_tree(list, before, found);
            if rest.len() == list.len() {
                return rest;
            }
            list = rest;
        }
    }
    let end = text.find(|c| !is_word(c) && c != '*').unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut path = before.to_vec();
    path.push(name.to_owned());
    if let Some(deeper) = rest.strip_prefix("::") {
        return read_tree(deeper, &path, found);
    }
    found.push(path);
    if let Some(renamed) = rest.strip_prefix(" as ") {
        rest = renamed.trim_start_matches(is_word);
    }
    rest
}
