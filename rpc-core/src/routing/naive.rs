//! Topic patterns as the specification words them, without a thought for speed: what the trie is held against. Pure.

/// The words of a key or a pattern: the empty one has none.
pub(super) fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Tries every way in which `#` can eat words.
pub(super) fn is_topic_match(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => (0..=key.len()).any(|eaten| is_topic_match(rest, &key[eaten..])),
        ([first, rest @ ..], [word, more @ ..]) => (*first == "*" || first == word) && is_topic_match(rest, more),
        _ => false,
    }
}
