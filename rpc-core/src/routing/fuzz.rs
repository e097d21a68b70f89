//! Fuzz target of the topic patterns: the trie against the naive matcher. Pure.

use super::{
    id::{QueueId, Target},
    naive::{is_topic_match, words},
    steps::{Progress, Steps},
    topic::{Scratch, Trie},
};

/// Each line is a step: `+0a.*` binds queue 0 by the pattern `a.*`, `-0a.*` removes one such binding, and any other line is a
/// key. A key must find the queues whose patterns match it, each pattern once.
pub fn topics(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut trie = Trie::default();
    let mut bindings: Vec<(String, u64)> = Vec::new();
    let mut scratch = Scratch::default();
    for line in text.lines().take(LINES_MAX) {
        let mut characters = line.chars();
        match characters.next() {
            Some('+') => {
                let binding = binding(characters);
                if !is_expensive(&binding.0) && binding.0.len() <= 255 {
                    trie.insert(&binding.0, queue(binding.1));
                    bindings.push(binding);
                }
            }
            Some('-') => {
                let binding = binding(characters);
                trie.remove(&binding.0, queue(binding.1));
                if let Some(at) = bindings.iter().position(|known| *known == binding) {
                    bindings.swap_remove(at);
                }
            }
            _ => compare(&trie, &mut scratch, &bindings, line),
        }
    }
    for (pattern, id) in bindings {
        trie.remove(&pattern, queue(id));
    }
    assert!(trie.is_empty(), "unused nodes remain");
}

fn compare(trie: &Trie, scratch: &mut Scratch, bindings: &[(String, u64)], key: &str) {
    let key_words = words(key);
    if key_words.len() > WORDS_MAX {
        return;
    }
    let mut found = Vec::new();
    // Paused ever later, a search finds as much as one that does not pause.
    let mut steps_max = key.len() % 5;
    while {
        steps_max += 1;
        let mut steps = Steps::new(steps_max);
        trie.search(key, scratch, &mut steps, |targets| found.extend(targets.iter().map(id_of))) == Progress::Paused
    } {}
    let mut matching: Vec<_> =
        bindings.iter().filter(|(pattern, _)| is_topic_match(&words(pattern), &key_words)).collect();
    matching.sort_unstable();
    matching.dedup();
    let mut expected: Vec<_> = matching.into_iter().map(|(_, id)| *id).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "'{key}' among {bindings:?}");
}

fn binding(mut characters: std::str::Chars<'_>) -> (String, u64) {
    let id = characters.next().map_or(0, u32::from) % 4;
    (characters.as_str().to_owned(), id.into())
}

fn queue(id: u64) -> Target {
    Target::Queue(QueueId(id))
}

fn id_of(target: Target) -> u64 {
    match target {
        Target::Queue(QueueId(id)) => id,
        Target::Exchange(_) => u64::MAX,
    }
}

/// Whether the naive matcher would take too long.
fn is_expensive(pattern: &str) -> bool {
    let words = words(pattern);
    words.len() > WORDS_MAX || words.iter().filter(|word| **word == "#").count() > HASHES_MAX
}

/// Patterns and keys of every shape.
pub fn topic_seeds() -> Vec<Vec<u8>> {
    [
        "+0a.b\n+1a.*\n+2a.#\n+3#.b\na.b\na\na.b.c\n-0a.b\na.b\n",
        "+0#\n+1*\n+2\n+3#.#\n\na\n.\na..b\n-2\n\n",
        "+0#.a.#\n+0#.a.#\n-0#.a.#\na.a.a.a\n+1*.#.*\n.a.\n",
        "+1é.*\n+1*.ü\né.ü\n+2a*\na*\nab\n+0**\n",
        "+0#.*.#.*.#\n+1*.*\na.b.c.d.e\na\n-0#.*.#.*.#\n-1*.*\na.b\n",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

const LINES_MAX: usize = 64;
const WORDS_MAX: usize = 16;
const HASHES_MAX: usize = 4;
