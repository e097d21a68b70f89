//! A slow matcher of topic patterns, as the specification words it. Tests compare the trie with it. Pure.

/// The words of a key or a pattern. An empty one has none.
pub(super) fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

/// Tries every number of words for each `#`.
pub(super) fn is_topic_match(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => (0..=key.len()).any(|eaten| is_topic_match(rest, &key[eaten..])),
        ([first, rest @ ..], [word, more @ ..]) => (*first == "*" || first == word) && is_topic_match(rest, more),
        _ => false,
    }
}
