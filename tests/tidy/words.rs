//! No sentence begins with a free relative ("What …", "Who …", "Whoever …"): its subject must be looked for.
//!
//! Questions are exempt, headings are not. Sentences begin where a comment, a paragraph, a list's item or a table's cell
//! does, and behind the end of another sentence.

use crate::source::{Source, Text};

/// A sentence that begins with a free relative, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) sentence: String,
}

/// In a Rust file: its comments, docs, and the string literals that may be an error's text.
pub(crate) fn in_rust(source: &Source) -> Vec<Found> {
    let comments = prose_of(&source.comments, |text| {
        let text = text.trim_start_matches(['/', '!', '*']);
        text.strip_suffix("*/").unwrap_or(text)
    });
    let strings = source.strings.iter().filter(|string| string.text.split_whitespace().count() > 2);
    let strings = strings.flat_map(|string| prose(string.line, &string.text.replace("\\n", "\n")));
    found(&source.path, comments.into_iter().chain(strings))
}

/// In a Markdown file.
pub(crate) fn in_markdown(path: &str, text: &str) -> Vec<Found> {
    found(path, prose(1, text).into_iter())
}

/// In a file whose comments begin with `mark`: scripts, manifests.
pub(crate) fn in_script(path: &str, text: &str, mark: &str) -> Vec<Found> {
    let comments: Vec<_> = text
        .lines()
        .enumerate()
        .filter_map(|(line, text)| {
            let begins = text.trim_start().starts_with(mark);
            let comment = if begins { text.trim_start() } else { text.split_once(&format!(" {mark} "))?.1 };
            Some(Text { line: line + 1, text: comment.to_owned() })
        })
        .collect();
    found(path, prose_of(&comments, |text| text.trim_start_matches(mark.chars().next().unwrap_or('#'))).into_iter())
}

pub(crate) fn complaints(found: &[Found]) -> Vec<String> {
    let line =
        |Found { path, line, sentence }: &Found| format!("{path}:{line}: begin with the subject instead: {sentence}");
    found.iter().map(line).collect()
}

fn found(path: &str, sentences: impl Iterator<Item = (usize, String)>) -> Vec<Found> {
    let free = sentences.filter(|(_, sentence)| is_free_relative(sentence));
    free.map(|(line, sentence)| Found { path: path.to_owned(), line, sentence }).collect()
}

fn is_free_relative(sentence: &str) -> bool {
    const WORDS: [&str; 9] = ["what", "who", "whom", "whose", "whoever", "whatever", "whichever", "whomever", "what's"];
    let first: String =
        sentence.chars().take_while(|character| character.is_alphabetic() || *character == '\'').collect();
    WORDS.contains(&first.to_lowercase().as_str()) && !sentence.ends_with('?') && sentence.contains(' ')
}

/// Joins comments of adjacent lines, without their marks.
fn prose_of(comments: &[Text], unmarked: impl Fn(&str) -> &str) -> Vec<(usize, String)> {
    let mut sentences = Vec::new();
    let mut block: Option<(usize, String)> = None;
    let mut last = 0;
    for comment in comments {
        let text = unmarked(&comment.text);
        match &mut block {
            Some((_, joined)) if comment.line == last + 1 => {
                joined.push('\n');
                joined.push_str(text);
            }
            _ => {
                sentences.extend(block.take().map(|(line, text)| prose(line, &text)).unwrap_or_default());
                block = Some((comment.line, text.to_owned()));
            }
        }
        last = comment.line + comment.text.matches('\n').count();
    }
    sentences.extend(block.map(|(line, text)| prose(line, &text)).unwrap_or_default());
    sentences
}

/// The sentences of a Markdown text: (line, sentence).
fn prose(first_line: usize, text: &str) -> Vec<(usize, String)> {
    let mut sentences = Vec::new();
    let mut paragraph: Vec<(usize, String)> = Vec::new();
    let mut in_code = false;
    for (line, text) in text.lines().enumerate() {
        let line = first_line + line;
        let text = text.trim().trim_start_matches('*').trim();
        let is_fence = text.starts_with("```");
        let begins = ["- ", "* ", "#", "> ", "|"].iter().any(|mark| text.starts_with(mark)) || is_numbered(text);
        if is_fence || text.is_empty() || in_code || begins {
            split(&std::mem::take(&mut paragraph), &mut sentences);
        }
        if is_fence {
            in_code = !in_code;
        }
        if is_fence || in_code || text.is_empty() {
            continue;
        }
        if text.starts_with('|') {
            for cell in text.split('|') {
                split(&[(line, cell.to_owned())], &mut sentences);
            }
        } else {
            let is_heading = text.starts_with('#');
            paragraph.push((line, text.trim_start_matches(['-', '*', '#', '>', ' ']).to_owned()));
            if is_heading {
                split(&std::mem::take(&mut paragraph), &mut sentences);
            }
        }
    }
    split(&paragraph, &mut sentences);
    sentences
}

fn is_numbered(text: &str) -> bool {
    text.split_once(". ").is_some_and(|(number, _)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

/// Cuts a paragraph into sentences. A full stop inside a word, and the ones of `e.g.` and `i.e.`, end none.
fn split(paragraph: &[(usize, String)], sentences: &mut Vec<(usize, String)>) {
    let words = paragraph.iter().flat_map(|(line, text)| text.split_whitespace().map(|word| (*line, word)));
    let mut sentence: Option<(usize, String)> = None;
    for (line, word) in words {
        let bare = word.trim_start_matches(['"', '(', '“', '*', '_']);
        match &mut sentence {
            Some((_, text)) => {
                text.push(' ');
                text.push_str(word);
            }
            None if is_numbered(&format!("{word} x")) => continue,
            None => sentence = Some((line, bare.to_owned())),
        }
        let end = word.trim_end_matches(['"', ')', '”', '*', '_']);
        if end.ends_with(['.', '!', '?']) && !matches!(bare, "e.g." | "i.e." | "vs.") {
            sentences.extend(
                sentence.take().map(|(line, text)| (line, text.trim_end_matches(['"', ')', '”', '*', '_']).to_owned())),
            );
        }
    }
    sentences.extend(sentence);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Vec<usize> {
        in_rust(&Source::new("rpc-core/src/a.rs", text)).into_iter().map(|found| found.line).collect()
    }

    #[test]
    fn a_free_relative_is_found_where_a_sentence_begins() {
        assert_eq!(rust("//! What came first.\nfn f() {}"), [1]);
        assert_eq!(rust("/// A queue. Whoever\n/// declares it owns it.\nfn f() {}"), [1]);
        assert_eq!(rust("// A queue.\n// - who publishes\nfn f() {}"), [2]);
        assert_eq!(rust("fn f() {} // whatever it is"), [1]);
        assert_eq!(rust("/* Whose turn\n it is. */"), [1]);
        assert_eq!(rust("#[error(\"what was sent is lost\")] struct E;"), [1]);
        assert_eq!(rust("#[cfg(test)] mod tests { // What is tested.\n}"), [1]);
        assert_eq!(rust("//! # What it holds\n//!\n//! | a | What follows |"), [1, 3]);
        let markdown = "# Title\nOne (two). \"Who asks\n gets it.\"\n1. What is first.\n";
        assert_eq!(in_markdown("README.md", markdown).iter().map(|found| found.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(in_script("run", "x=1 # Who runs.\n  # What runs\n", "#").len(), 2);
    }

    #[test]
    fn questions_code_and_the_middle_of_a_sentence_are_no_free_relatives() {
        for text in [
            "// Which queues does it reach? What becomes of it?",
            "// It says what happened, e.g. what was sent.",
            "//! ```text\n//! What follows\n//! ```",
            "// Whether it is so. Which of them. When it ends. How it ends.",
            "// `What` is a name.\n// It tells\n// what it is",
            "fn what(who: u8) {}",
            "const KEY: &str = \"what\";",
        ] {
            assert_eq!(rust(text), [0; 0], "{text}");
        }
    }

    #[test]
    fn a_complaint_says_where_the_sentence_is() {
        let found = in_markdown("a/b.md", "Text. Who is.");
        assert_eq!(complaints(&found), ["a/b.md:1: begin with the subject instead: Who is."]);
    }
}
