//! Names on the wire and in generated code, and guesses at mistyped ones.

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;

/// The longest service, method and queue name. A routing key holds two or three of them and at most 255 bytes.
pub(crate) const NAME_BYTES_MAX: usize = 100;

/// The longest routing key and queue name in AMQP 0-9-1 (a short string).
pub(crate) const SHORT_STRING_BYTES_MAX: usize = 255;

/// The reason why `name` cannot be a word of a routing key, with a correction; `None` if it can.
pub(crate) fn wire_name_mistake(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a name cannot be empty; use a-z, 0-9, `_` and `-`".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("the name has {} bytes; the limit is {NAME_BYTES_MAX}", name.len()));
    }
    if name.bytes().all(is_wire_byte) {
        return None;
    }
    let rule = format!("`{name}` cannot be a name on the wire, where only a-z, 0-9, `_` and `-` are allowed");
    Some(match similar_wire_name(name) {
        Some(similar) => format!("{rule}, as in `{similar}`"),
        None => rule,
    })
}

/// `name` with the characters that are not allowed replaced, unless nothing is left.
pub(crate) fn similar_wire_name(name: &str) -> Option<String> {
    let replaced: String =
        snake_case(name).chars().map(|c| if c.is_ascii() && is_wire_byte(c as u8) { c } else { '_' }).collect();
    let trimmed = replaced.trim_matches('_');
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

fn is_wire_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
}

/// `HttpServer` and `HTTPServer` become `http_server`; a name in snake case stays as it is.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, &c) in chars.iter().enumerate() {
        let begins_word = c.is_uppercase() && i > 0 && {
            let before = chars[i - 1];
            let is_last_of_acronym = chars.get(i + 1).is_some_and(|after| after.is_lowercase());
            before.is_lowercase() || before.is_ascii_digit() || (before.is_uppercase() && is_last_of_acronym)
        };
        if begins_word {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// The one of `known` that `word` most likely stands for.
pub(crate) fn did_you_mean<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let most_edits = (word.len() / 3).max(1);
    known
        .iter()
        .map(|&candidate| {
            let is_prefix = word.len() >= 3 && (candidate.starts_with(word) || word.starts_with(candidate));
            (if is_prefix { 1 } else { edits(word, candidate) }, candidate)
        })
        .filter(|&(edits, _)| edits <= most_edits)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, substitutions and swaps of neighbours from `a` to `b` (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // For the prefixes of `a` one and two characters shorter.
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitute = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitute.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && (a[i - 1], a[i - 2]) == (b[j - 2], b[j - 1]) {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// An identifier's text, without `r#`.
pub(crate) fn text_of(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// An identifier that users may write. Tools find it at `like`, and the compiler knows that it is generated.
pub(crate) fn generated(name: &str, like: &Ident) -> Ident {
    Ident::new(name, like.span().resolved_at(Span::call_site()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_converted() {
        for (camel, snake) in [
            ("Fibonacci", "fibonacci"),
            ("HttpServer", "http_server"),
            ("HTTPServer", "http_server"),
            ("V1Api", "v1_api"),
            ("Utf8", "utf8"),
            ("already_snake", "already_snake"),
        ] {
            assert_eq!(snake_case(camel), snake);
        }
    }

    #[test]
    fn mistyped_words_are_recognised_and_unrelated_ones_are_not() {
        let known = ["name", "alias", "timeout", "idempotent", "oneway"];
        assert_eq!(did_you_mean("timout", &known), Some("timeout"));
        assert_eq!(did_you_mean("one_way", &known), Some("oneway"));
        assert_eq!(did_you_mean("idempotence", &known), Some("idempotent"));
        assert_eq!(did_you_mean("nam", &known), Some("name"));
        assert_eq!(did_you_mean("naem", &known), Some("name"), "two letters changed places");
        assert_eq!(did_you_mean("tiemout", &known), Some("timeout"));
        assert_eq!((edits("", "ab"), edits("abc", "abc"), edits("ca", "abc"), edits("abcd", "badc")), (2, 0, 3, 2));
        assert_eq!(did_you_mean("retries", &known), None);
    }

    #[test]
    fn wire_names_are_checked() {
        assert_eq!(wire_name_mistake("a-b_9"), None);
        assert_eq!(wire_name_mistake(&"x".repeat(100)), None);
        assert!(wire_name_mistake(&"x".repeat(101)).unwrap().contains("101 bytes"));
        assert!(wire_name_mistake("Fib.Fast").unwrap().ends_with("as in `fib_fast`"));
        assert!(wire_name_mistake("ß").unwrap().ends_with("`-` are allowed"));
        wire_name_mistake("").unwrap();
    }
}
