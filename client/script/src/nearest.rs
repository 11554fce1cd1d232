//! The known word that a mistyped one is nearest to.

/// The nearest of these, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A stranger's key may be long; one that is longer than any of ours by more than a slip is none of them.
    const LONGEST: usize = 32;
    if word.len() > LONGEST {
        return None;
    }
    let slips = |known: &str| 1 + known.chars().count() / 4;
    known
        .into_iter()
        .map(|known| (strsim::levenshtein(word, known), known))
        .filter(|(distance, known)| *distance <= slips(known))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["if_version", "ephemeral", "data", "set", "ttl_ms"];
        for (word, meant) in [
            ("if-version", Some("if_version")),
            ("ephemral", Some("ephemeral")),
            ("date", Some("data")),
            ("ttl", None),
            ("sett", Some("set")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
