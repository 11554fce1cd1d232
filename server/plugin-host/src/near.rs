//! What somebody may have meant: the nearest of some names.

/// `, did you mean NAME?`, when one of the names is near to what was written; otherwise nothing.
pub(crate) fn hint<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = names.map(|name| (distance(written, name), name)).min();
    match near {
        // A third of it may be wrong.
        Some((distance, name)) if distance <= name.len().max(3) / 3 => format!(", did you mean {name}?"),
        _ => String::new(),
    }
}

/// How many characters have to be put in, taken out or changed. Names are short; of longer ones the answer is "far".
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    if a.len() > LONGEST || b.len() > LONGEST { usize::MAX } else { strsim::levenshtein(a, b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_meant() {
        let names = ["params", "parks", "name"];
        let hint = |written| hint(written, names.into_iter());
        assert_eq!(hint("param"), ", did you mean params?");
        assert_eq!(hint("nmae"), "");
        assert_eq!(hint("nam"), ", did you mean name?");
        assert_eq!(hint("on_failure"), "");
        assert_eq!(hint(&"x".repeat(100_000)), "");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
