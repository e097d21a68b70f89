//! The words of routing keys and patterns, and their numbers.

use super::{collections::Map, error::RoutingError};

/// Numbers for the literal words in use.
#[derive(Debug, Default)]
pub(super) struct Words {
    ids: Map<Box<str>, Word>,
    next: WordId,
}

#[derive(Debug)]
struct Word {
    id: WordId,
    /// The number of edges with this word.
    edges: usize,
}

/// Never used twice.
pub(super) type WordId = u64;

/// The number of `#` among the words of a binding key.
pub(crate) fn hashes(routing_key: &str) -> usize {
    routing_key.split('.').filter(|word| *word == "#").count()
}

/// Refuses a binding key with too many `#`.
pub(super) fn check_hashes(routing_key: &str, max: usize) -> Result<(), RoutingError> {
    let hashes = hashes(routing_key);
    match hashes > max {
        true => Err(RoutingError::TooManyHashes { key: routing_key.to_owned(), hashes, max }),
        false => Ok(()),
    }
}

impl Words {
    /// Whether no edge has a word.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn find(&self, word: &str) -> Option<WordId> {
        self.ids.get(word).map(|word| word.id)
    }

    /// The number of a word, for a new edge.
    pub(super) fn take(&mut self, word: &str) -> WordId {
        if let Some(known) = self.ids.get_mut(word) {
            known.edges += 1;
            return known.id;
        }
        let id = self.next;
        self.next += 1;
        self.ids.insert(word.into(), Word { id, edges: 1 });
        id
    }

    /// The number of a word, for an edge to be removed.
    pub(super) fn give_back(&mut self, word: &str) -> Option<WordId> {
        let known = self.ids.get_mut(word)?;
        let id = known.id;
        known.edges -= 1;
        if known.edges == 0 {
            self.ids.remove(word);
        }
        Some(id)
    }
}

/// The words of a key or a pattern.
pub(super) fn words(key: &str) -> impl Iterator<Item = &str> {
    let all = (!key.is_empty()).then(|| key.split('.'));
    all.into_iter().flatten()
}
