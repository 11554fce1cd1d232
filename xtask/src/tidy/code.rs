//! Rust text with its comments and literals blanked, line by line as it was: what rules on code may look at.

/// The text without what stands in comments, strings and characters; every line keeps its number.
pub(super) fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            '"' => string_end(&chars, at + 1),
            'r' if !follows_word(&chars, at) => raw_end(&chars, at).unwrap_or(at),
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The names of all functions in a file.
pub(super) fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(function)
}

/// The name of the function that begins on a line.
pub(super) fn function(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let is_word = before.chars().all(|c| c.is_alphanumeric() || " ()_:".contains(c));
    let name = &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_')?];
    (is_word && !name.is_empty()).then_some(name)
}

/// Whether a word stands at a place, and not the end of a longer one.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn line_end(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len())
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0, at);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The end of `r"..."` or `r#"..."#`; none when it is a name that begins with r.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let start = at + 1 + hashes;
    if chars.get(start) != Some(&'"') {
        return None;
    }
    let closes = |i: &usize| chars[*i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    Some((start + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes))
}

/// The end of `'c'` or `'\...'`; none when it is a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return (at + 3..chars.len()).find(|i| chars[*i] == '\'').map(|i| i + 1);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// Whether the place is inside a word: the r of `for`. A byte string's b is none.
fn follows_word(chars: &[char], at: usize) -> bool {
    let word = |i: usize| chars[i].is_alphanumeric() || chars[i] == '_';
    match at {
        0 => false,
        1 => word(0) && chars[0] != 'b',
        _ => word(at - 1) && (chars[at - 1] != 'b' || word(at - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        blanked(text).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        assert_eq!(words("a /* b /* c */ d */ e // f\ng"), ["a", "e", "g"]);
        assert_eq!(words(r#"a "b \" c" d"#), ["a", "d"]);
        assert_eq!(words(r##"a r#"b " c"# d br"e" f"##), ["a", "d", "b", "f"]);
        assert_eq!(words(r"a '\'' '\u{1F}' 'b' c"), ["a", "c"]);
        assert_eq!(words("fn f<'a>(x: &'a str) {}").concat(), "fnf<'a>(x:&'astr){}");
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "a\n\"b\nc\"\n/* d\ne */\nf";
        assert_eq!(blanked(text).lines().count(), text.lines().count());
        assert_eq!(blanked(text).lines().last(), Some("f"));
    }

    #[test]
    fn functions_are_found_by_name() {
        let text = "pub(crate) async fn one(a: u8) {}\n    fn two<T>() {}\n// the fn three(\nlet f: fn (u8);";
        assert_eq!(functions(text).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_word_is_not_the_end_of_another() {
        assert!(has_word("x; sleep(1)", "sleep("));
        assert!(has_word("thread::sleep(1)", "sleep("));
        assert!(!has_word("oversleep(1)", "sleep("));
    }
}
