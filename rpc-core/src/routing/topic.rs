//! Topic patterns: a trie over words.
//!
//! It maps patterns to sets of targets. The cost of a search depends on the words of the key, not on the number of patterns:
//! a word costs one hash of its text, and every node that the search is at costs at most three look-ups by number a word.
//!
//! ```text
//!  patterns  a.b   a.*   a.#   #.b
//!
//!  root ──a──► · ──b──► {a.b}
//!   │          ├──*──► {a.*}
//!   │          └──#──► {a.#}
//!   └────#──► · ──b──► {#.b}
//! ```
//!
//! A search reads the key once, from the left, and is at many nodes at a time. The nodes in `current` have consumed exactly the
//! words so far. The nodes in `open` were reached through `#` and stay, because `#` may consume any number of words. A node has
//! one parent, so it enters `current` at most once a word, and `open` holds each node once: `#.#.#` is three nodes at most.
//!
//! Words, from RabbitMQ 3.10.8: the empty key has none; otherwise dots separate words, which may be empty. `*` matches an
//! empty word, and never the empty key.

use super::{
    collections::{Map, UniqueList},
    id::Target,
    steps::{Progress, Steps},
    targets::TargetSet,
    words::{WordId, Words, words},
};

/// All patterns of one topic exchange.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// The children by literal words.
    edges: Map<(NodeId, WordId), NodeId>,
    words: Words,
}

/// The end of a pattern, or a node on the path to one.
#[derive(Debug, Default)]
struct Node {
    /// The targets of the pattern that ends here.
    targets: TargetSet,
    /// The child by `*`.
    star: Option<NodeId>,
    /// The child by `#`.
    hash: Option<NodeId>,
    /// The number of children by literal words.
    literals: usize,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.targets.is_empty() && self.star.is_none() && self.hash.is_none() && self.literals == 0
    }
}

type NodeId = usize;

const ROOT: NodeId = 0;

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], free: Vec::new(), edges: Map::default(), words: Words::default() }
    }
}

impl Trie {
    /// Adds one binding by `pattern` to `target`.
    pub(super) fn insert(&mut self, pattern: &str, target: Target) {
        let mut node = ROOT;
        for word in words(pattern) {
            node = match self.child(node, word) {
                Some(child) => child,
                None => self.add_child(node, word),
            };
        }
        self.nodes[node].targets.insert(target);
    }

    /// Removes one binding by `pattern` to `target`, and the nodes that no other pattern needs.
    pub(super) fn remove(&mut self, pattern: &str, target: Target) {
        let mut node = ROOT;
        let mut path = Vec::new();
        for word in words(pattern) {
            let Some(child) = self.child(node, word) else {
                return;
            };
            path.push((node, word, child));
            node = child;
        }
        self.nodes[node].targets.remove(target);
        for (parent, word, child) in path.into_iter().rev() {
            if !self.nodes[child].is_unused() {
                return;
            }
            self.remove_child(parent, word, child);
        }
    }

    /// Calls `found` with the targets of each pattern that matches `key`. A step is a visit of a node. When the steps are
    /// used up, the next call with the same key and scratch goes on, if the trie has not changed.
    pub(super) fn search(
        &self,
        key: &str,
        scratch: &mut Scratch,
        steps: &mut Steps,
        mut found: impl FnMut(&TargetSet),
    ) -> Progress {
        let mut place = scratch.place.take().unwrap_or_else(|| self.begin(key, scratch));
        let Scratch { current, next, open, .. } = scratch;
        while let Some((word, rest)) = place.word(key) {
            let word = self.words.find(word);
            for at in place.position..current.len() + place.opened {
                if !steps.take() {
                    scratch.place = Some(Place { position: at, ..place });
                    return Progress::Paused;
                }
                let node = current.get(at).copied().unwrap_or_else(|| open.as_slice()[at - current.len()]);
                self.step(node, word, next, open);
            }
            std::mem::swap(current, next);
            next.clear();
            // A `#` node opened while matching this word starts consuming at the next word.
            place = Place { rest, position: 0, opened: open.as_slice().len() };
            if current.is_empty() && open.as_slice().is_empty() {
                return Progress::Done;
            }
        }
        let last = current.iter().chain(open.as_slice()).enumerate().skip(place.position);
        for (at, &node) in last {
            if !steps.take() {
                scratch.place = Some(Place { position: at, ..place });
                return Progress::Paused;
            }
            let targets = &self.nodes[node].targets;
            if !targets.is_empty() {
                found(targets);
            }
        }
        Progress::Done
    }

    /// Stands before the first word of a key.
    fn begin(&self, key: &str, Scratch { current, next, open, .. }: &mut Scratch) -> Place {
        current.clear();
        next.clear();
        open.clear();
        current.push(ROOT);
        self.open(self.nodes[ROOT].hash, open);
        Place { rest: (!key.is_empty()).then_some(0), position: 0, opened: open.as_slice().len() }
    }

    /// Whether it has no nodes, not even unused ones.
    #[cfg(any(test, fuzzing))]
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == self.free.len() + 1
            && self.nodes[ROOT].is_unused()
            && self.edges.is_empty()
            && self.words.is_empty()
    }

    /// Advances from `node` by one word of the key.
    fn step(&self, node: NodeId, word: Option<WordId>, next: &mut Vec<NodeId>, open: &mut UniqueList<NodeId>) {
        let Node { star, literals, .. } = self.nodes[node];
        let literal = word.filter(|_| literals > 0).and_then(|word| self.edges.get(&(node, word)).copied());
        for child in [literal, star].into_iter().flatten() {
            next.push(child);
            self.open(self.nodes[child].hash, open);
        }
    }

    /// Enters a node after `#`, and those after `#.#` and so on, because `#` may consume no word.
    fn open(&self, mut hash: Option<NodeId>, open: &mut UniqueList<NodeId>) {
        while let Some(node) = hash
            && open.push(node)
        {
            hash = self.nodes[node].hash;
        }
    }

    fn child(&self, node: NodeId, word: &str) -> Option<NodeId> {
        match word {
            "*" => self.nodes[node].star,
            "#" => self.nodes[node].hash,
            _ => self.edges.get(&(node, self.words.find(word)?)).copied(),
        }
    }

    fn add_child(&mut self, parent: NodeId, word: &str) -> NodeId {
        let child = match self.free.pop() {
            Some(child) => child,
            None => {
                self.nodes.push(Node::default());
                self.nodes.len() - 1
            }
        };
        match word {
            "*" => self.nodes[parent].star = Some(child),
            "#" => self.nodes[parent].hash = Some(child),
            _ => {
                self.nodes[parent].literals += 1;
                self.edges.insert((parent, self.words.take(word)), child);
            }
        }
        child
    }

    fn remove_child(&mut self, parent: NodeId, word: &str, child: NodeId) {
        match word {
            "*" => self.nodes[parent].star = None,
            "#" => self.nodes[parent].hash = None,
            _ => {
                self.nodes[parent].literals -= 1;
                if let Some(word) = self.words.give_back(word) {
                    self.edges.remove(&(parent, word));
                }
            }
        }
        // Replaced by a new node, because the old one may own an index of targets.
        self.nodes[child] = Node::default();
        self.free.push(child);
    }
}

/// The memory of a search, to be reused.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    current: Vec<NodeId>,
    next: Vec<NodeId>,
    open: UniqueList<NodeId>,
    /// Where a paused search stands.
    place: Option<Place>,
}

impl Scratch {
    /// Forgets a paused search.
    pub(super) fn reset(&mut self) {
        self.place = None;
    }
}

/// Where a search stands in its key, and among the nodes that it is at.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where the words begin that are not read yet; `None` behind the last word.
    rest: Option<usize>,
    /// The number of nodes, first of `current` and then of `open`, that are done for this word.
    position: usize,
    /// How many nodes of `open` take part in this word.
    opened: usize,
}

impl Place {
    /// The next word, and where the words behind it begin.
    fn word(self, key: &str) -> Option<(&str, Option<usize>)> {
        let start = self.rest?;
        let word = key[start..].split('.').next().unwrap_or_default();
        let end = start + word.len();
        Some((word, (end < key.len()).then_some(end + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::id::QueueId;

    fn queue(id: u64) -> Target {
        Target::Queue(QueueId(id))
    }

    fn trie(patterns: &[&str]) -> Trie {
        let mut trie = Trie::default();
        for (id, pattern) in (0..).zip(patterns) {
            trie.insert(pattern, queue(id));
        }
        trie
    }

    /// The numbers of the patterns that match, each as often as it is found.
    fn matches(trie: &Trie, key: &str) -> Vec<u64> {
        let all_at_once = search(trie, key, usize::MAX).0;
        for steps_max in [1, 2, 7] {
            assert_eq!(search(trie, key, steps_max).0, all_at_once, "'{key}', {steps_max} steps at a time");
        }
        all_at_once
    }

    /// The numbers of the patterns that match, and the steps taken, so many at a time.
    fn search(trie: &Trie, key: &str, steps_max: usize) -> (Vec<u64>, usize) {
        let (mut found, mut taken) = (Vec::new(), 0);
        let mut scratch = Scratch::default();
        loop {
            let mut steps = Steps::new(steps_max);
            let progress = trie.search(key, &mut scratch, &mut steps, |targets| {
                found.extend(targets.iter().map(|target| match target {
                    Target::Queue(id) => id.0,
                    Target::Exchange(_) => unreachable!("only queues are bound here"),
                }));
            });
            taken += steps.taken();
            if progress == Progress::Done {
                break;
            }
            assert_eq!(steps.taken(), steps_max, "a search pauses when its steps are used up");
        }
        found.sort_unstable();
        (found, taken)
    }

    /// RabbitMQ 3.10.8's own answers: a pattern, and the keys that it matches.
    #[test]
    fn patterns_match_the_keys_rabbitmq_says() {
        const KEYS: [&str; 11] = ["", "a", "a.b", "a.b.c", ".", "a.", ".a", "a..b", "b", "b.a.c", "A"];
        let answers: [(&str, &[&str]); 12] = [
            ("#", &KEYS),
            ("*", &["a", "b", "A"]),
            ("a.#", &["a", "a.b", "a.b.c", "a.", "a..b"]),
            ("#.b", &["a.b", "a..b", "b"]),
            ("*.*", &["a.b", ".", "a.", ".a"]),
            ("a.*", &["a.b", "a."]),
            ("#.#", &KEYS),
            ("*.#", &["a", "a.b", "a.b.c", ".", "a.", ".a", "a..b", "b", "b.a.c", "A"]),
            ("", &[""]),
            ("a..b", &["a..b"]),
            ("#.a.#", &["a", "a.b", "a.b.c", "a.", ".a", "a..b", "b.a.c"]),
            ("*.a.*", &["b.a.c"]),
        ];
        let together = trie(&answers.map(|(pattern, _)| pattern));
        for key in KEYS {
            for (pattern, keys) in answers {
                let expected = if keys.contains(&key) { vec![0] } else { vec![] };
                assert_eq!(matches(&trie(&[pattern]), key), expected, "'{pattern}' alone, '{key}'");
            }
            let expected: Vec<_> = (0..).zip(answers).filter(|(_, (_, keys))| keys.contains(&key)).collect();
            let expected: Vec<_> = expected.into_iter().map(|(id, _)| id).collect();
            assert_eq!(matches(&together, key), expected, "all patterns in one trie, '{key}'");
        }
    }

    #[test]
    fn wildcards_are_whole_words_only() {
        for (pattern, key, expected) in [
            ("a*", "a", false),
            ("a*", "ab", false),
            ("a*", "a*", true),
            ("#a", "#a", true),
            ("#a", "b.a", false),
            ("**", "a", false),
            ("a.*", "a.*", true),
            ("a.*", "a.#", true),
            ("a.b", "a.*", false),
            ("a.b", "#", false),
            ("é.*", "é.ü", true),
        ] {
            assert_eq!(!matches(&trie(&[pattern]), key).is_empty(), expected, "'{pattern}' '{key}'");
        }
    }

    #[test]
    fn longest_keys_and_patterns_match() {
        let dots = ".".repeat(255);
        let words = vec!["w"; 128].join(".");
        assert_eq!(words.len(), 255);
        let one_word = "w".repeat(255);
        for (pattern, key, expected) in [
            (dots.as_str(), dots.as_str(), true),
            ("#", &dots, true),
            ("*.#.*", &dots, true),
            ("*", &dots, false),
            (&words, &words, true),
            (&vec!["*"; 128].join("."), &words, true),
            (&vec!["*"; 127].join("."), &words, false),
            (&one_word, &one_word, true),
            ("*", &one_word, true),
        ] {
            assert_eq!(!matches(&trie(&[pattern]), key).is_empty(), expected, "'{pattern}' '{key}'");
        }
    }

    /// A search that tries all ways to distribute 128 words among 128 `#` would not end.
    #[test]
    fn many_hashes_in_a_pattern_do_not_multiply_the_work() {
        let hashes = trie(&[&vec!["#"; 128].join("."), &vec!["#.w"; 64].join("."), &vec!["#.*"; 64].join(".")]);
        let key = vec!["w"; 128].join(".");
        assert_eq!(matches(&hashes, &key), [0, 1, 2]);
        let looks = search(&hashes, &key, usize::MAX).1;
        assert!(looks < 130 * 4 * 128, "{looks}");
    }

    #[test]
    fn pattern_is_found_once_however_many_ways_it_matches() {
        assert_eq!(matches(&trie(&["#.a.#"]), "a.a.a.a"), [0]);
        assert_eq!(matches(&trie(&["#.a.#.a.#", "#.#"]), "a.a.a.a"), [0, 1]);
        assert_eq!(matches(&trie(&["#.*.#"]), "a.a.a.a"), [0]);
    }

    #[test]
    fn removing_a_pattern_prunes_the_nodes_that_only_it_needed() {
        let mut trie = trie(&["a.b.c", "a.b", "a.*.c", "a.#", "", "a.b.c.d"]);
        let nodes = |trie: &Trie| trie.nodes.len() - trie.free.len();
        assert_eq!(nodes(&trie), 8);
        trie.remove("a.b.c.d", queue(5));
        assert_eq!(nodes(&trie), 7);
        trie.remove("a.b", queue(1));
        assert_eq!(nodes(&trie), 7, "a.b.c still leads through a.b");
        trie.remove("a.b.c", queue(0));
        assert_eq!(nodes(&trie), 5);
        assert_eq!(matches(&trie, "a.b.c"), [2, 3]);
        trie.remove("a.*.c", queue(2));
        trie.remove("a.#", queue(3));
        trie.remove("", queue(4));
        assert!(trie.is_empty());
        trie.insert("x.y", queue(9));
        assert_eq!(matches(&trie, "x.y"), [9]);
    }

    #[test]
    fn removing_a_missing_pattern_changes_nothing() {
        let mut trie = trie(&["a.b"]);
        for pattern in ["", "a", "a.b.c", "*.b", "#", "x"] {
            trie.remove(pattern, queue(0));
        }
        trie.remove("a.b", queue(7));
        assert_eq!(matches(&trie, "a.b"), [0]);
        trie.remove("a.b", queue(0));
        assert!(trie.is_empty());
    }

    /// The claim of the module: a search visits as many nodes with 10 as with 100 000 patterns, and more for more words.
    #[test]
    fn work_of_a_search_grows_with_the_words_and_not_with_the_patterns() {
        let looks = |patterns: u64| -> Vec<usize> {
            let mut trie = Trie::default();
            for id in 0..patterns {
                trie.insert(&pattern(id), queue(id));
            }
            (1..=8).map(|words| search(&trie, &key(words), usize::MAX).1).collect()
        };
        let few = looks(10);
        assert_eq!(looks(1_000), few);
        assert_eq!(looks(100_000), few);
        assert!(few.is_sorted(), "{few:?}");
        assert!(few[7] <= 8 * few[0], "{few:?}");
    }

    /// Patterns of every shape, each with its own words.
    fn pattern(id: u64) -> String {
        match id % 5 {
            0 => format!("service{id}.method{id}.a.b.c.d.e.f"),
            1 => format!("service{id}.*.method{id}"),
            2 => format!("service{id}.#"),
            3 => format!("*.method{id}.#"),
            _ => format!("#.event{id}"),
        }
    }

    /// A key that follows the first pattern of the first shape to its end.
    fn key(words: usize) -> String {
        let all = ["service0", "method0", "a", "b", "c", "d", "e", "f"];
        all[..words].join(".")
    }
}
