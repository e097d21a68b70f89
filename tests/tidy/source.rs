//! A Rust file as the rules see it: tokens, without comments, strings and test modules.
//!
//! Not a parser: enough of the lexical grammar to tell code from text.

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// From the root of the workspace.
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
    /// Of the code that is not for tests.
    pub(crate) tokens: Vec<Token>,
    /// Files named by `#[cfg(test)] mod name;`.
    test_modules: Vec<String>,
}

/// An identifier, a lifetime's or number's word, `::`, or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        let (tokens, test_modules) = without_tests(&tokens(text));
        Self { path: path.into(), lines: text.lines().map(str::to_owned).collect(), tokens, test_modules }
    }

    /// The crate's module the file is: `["broker", "core"]` for `rpc-core/src/broker/core/mod.rs`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.split_once("/src/").map_or(self.path.as_str(), |(_, path)| path);
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        if matches!(path, "lib" | "main" | "mod") { Vec::new() } else { path.split('/').collect() }
    }

    pub(crate) fn complaint(&self, line: usize, words: &str) -> String {
        format!("{}:{line}: {words}", self.path)
    }

    /// Every path in the code, `use` trees unfolded: (line, segments). `super` and `self` are resolved to `crate`.
    pub(crate) fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.tokens[at].text == "use" {
                at = self.use_tree(at + 1, &[], &mut paths);
            } else if is_word(&self.tokens[at].text) && (at == 0 || self.tokens[at - 1].text != "::") {
                let line = self.tokens[at].line;
                let (segments, end) = self.segments(at);
                if segments.len() > 1 {
                    paths.push((line, self.resolved(segments)));
                }
                at = end;
            } else {
                at += 1;
            }
        }
        paths
    }

    /// `a::b::c` from `at`, and where it ends.
    fn segments(&self, mut at: usize) -> (Vec<String>, usize) {
        let mut segments = Vec::new();
        while let Some(token) = self.tokens.get(at)
            && is_word(&token.text)
        {
            segments.push(token.text.clone());
            at += 1;
            if self.tokens.get(at).is_none_or(|token| token.text != "::") {
                break;
            }
            at += 1;
        }
        (segments, at)
    }

    /// One tree of a `use`; returns where it ends.
    fn use_tree(&self, mut at: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
        if self.tokens.get(at).is_some_and(|token| token.text == "::") {
            at += 1;
        }
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let (segments, end) = self.segments(at);
        let path: Vec<_> = prefix.iter().cloned().chain(segments).collect();
        match self.tokens.get(end).map(|token| token.text.as_str()) {
            Some("{") => {
                let mut at = end + 1;
                while let Some(token) = self.tokens.get(at) {
                    match token.text.as_str() {
                        "}" => return at + 1,
                        "," => at += 1,
                        _ => at = self.use_tree(at, &path, paths).max(at + 1),
                    }
                }
                at
            }
            Some("*") => {
                paths.push((line, self.resolved(path)));
                end + 1
            }
            // A rename: its new name is not a path.
            Some("as") => {
                paths.push((line, self.resolved(path)));
                end + 2
            }
            _ => {
                paths.push((line, self.resolved(path)));
                end
            }
        }
    }

    fn resolved(&self, segments: Vec<String>) -> Vec<String> {
        let mut module: Vec<String> = self.module().into_iter().map(str::to_owned).collect();
        let relative = segments.iter().take_while(|segment| matches!(segment.as_str(), "super" | "self")).count();
        if relative == 0 {
            return segments;
        }
        for segment in &segments[..relative] {
            if segment == "super" {
                module.pop();
            }
        }
        std::iter::once("crate".to_owned()).chain(module).chain(segments[relative..].iter().cloned()).collect()
    }
}

/// Leaves out the files that `#[cfg(test)] mod name;` names.
pub(crate) fn without_test_files(sources: Vec<Source>) -> Vec<Source> {
    let mut prefixes = Vec::new();
    for source in &sources {
        let folder = match source.path.strip_suffix("/mod.rs").or_else(|| source.path.strip_suffix("/lib.rs")) {
            Some(folder) => folder.to_owned(),
            None => source.path.trim_end_matches(".rs").to_owned(),
        };
        for name in &source.test_modules {
            prefixes.push(format!("{folder}/{name}.rs"));
            prefixes.push(format!("{folder}/{name}/"));
        }
    }
    sources.into_iter().filter(|source| !prefixes.iter().any(|prefix| source.path.starts_with(prefix))).collect()
}

pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_alphanumeric())
}

/// Cuts `#[cfg(test)] mod … { … }` out, and names the modules of `#[cfg(test)] mod name;`.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut test_modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_cfg_test = tokens[at..].iter().map(|token| token.text.as_str()).take(CFG_TEST.len()).eq(CFG_TEST);
        if !is_cfg_test {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // The item ends with its first `;` outside of braces, or with the brace that closes its first block.
        let begin = at + CFG_TEST.len();
        let mut depth = 0_usize;
        at = begin;
        while at < tokens.len() {
            match tokens[at].text.as_str() {
                "{" | "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => {
                    let item: Vec<_> = tokens[begin..at].iter().map(|token| token.text.as_str()).collect();
                    if let [.., "mod", name] = item[..] {
                        test_modules.push(name.to_owned());
                    }
                    break;
                }
                _ => {}
            }
            at += 1;
        }
        at += 1;
    }
    (kept, test_modules)
}

/// Comments and literals out, words and punctuation in.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut at = 0;
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let begin = at;
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
            }
            '/' if peek(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (peek(at), peek(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= chars.len() {
                        break;
                    }
                }
            }
            '"' => at = end_of_string(&chars, at),
            '\'' => {
                // A character literal; else a lifetime, whose name is no word of interest.
                if peek(at + 1) == '\\' {
                    at += 3;
                    while at < chars.len() && chars[at] != '\'' {
                        at += 1;
                    }
                    at += 1;
                } else if peek(at + 2) == '\'' {
                    at += 3;
                } else {
                    at += 1;
                    while is_word_character(peek(at)) {
                        at += 1;
                    }
                }
            }
            first if is_word_character(first) => {
                while is_word_character(peek(at)) {
                    at += 1;
                }
                let word: String = chars[begin..at].iter().collect();
                let is_raw = matches!(word.as_str(), "r" | "br" | "cr") && raw_string(&chars, at).is_some();
                if is_raw {
                    at = raw_string(&chars, at).unwrap_or(at);
                } else if matches!(word.as_str(), "b" | "c") && peek(at) == '"' {
                    at = end_of_string(&chars, at);
                } else {
                    tokens.push(Token { line, text: word });
                }
            }
            ':' if peek(at + 1) == ':' => {
                at += 2;
                tokens.push(Token { line, text: "::".to_owned() });
            }
            other => {
                at += 1;
                if !other.is_whitespace() {
                    tokens.push(Token { line, text: other.to_string() });
                }
            }
        }
        let end = at.min(chars.len());
        line += chars[begin..end].iter().filter(|character| **character == '\n').count();
    }
    tokens
}

fn is_word_character(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

/// Behind the closing quote of the string that opens at `at`.
fn end_of_string(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Behind a raw string whose hashes begin at `at`.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|character| **character == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut end = at + hashes + 1;
    while end < chars.len() {
        let closing = chars[end + 1..].iter().take(hashes).filter(|character| **character == '#').count();
        if chars[end] == '"' && closing == hashes {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    Some(end)
}

mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new("rpc-core/src/x.rs", text).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a /* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# b\"i\" 'j' '\\'' 'k // l\n m";
        assert_eq!(words(text), ["a", "m"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let source = Source::new("x.rs", "/*\n*/ \"\n\" a\n// b\nc");
        let lines: Vec<_> = source.tokens.iter().map(|token| (token.text.as_str(), token.line)).collect();
        assert_eq!(lines, [("a", 3), ("c", 5)]);
    }

    #[test]
    fn test_modules_are_left_out() {
        let text = "fn a() {} #[cfg(test)] mod tests { fn b() { c() } } fn d() {} #[cfg(test)] use e::f; g";
        assert_eq!(words(text).join(" "), "fn a ( ) { } fn d ( ) { } g");
        let files = ["rpc-core/src/a/mod.rs", "rpc-core/src/a/oracle.rs", "rpc-core/src/a/other.rs"];
        let sources = files.map(|path| Source::new(path, "#[cfg(test)]\nmod oracle;"));
        let kept: Vec<_> = without_test_files(sources.into()).into_iter().map(|source| source.path).collect();
        assert_eq!(kept, ["rpc-core/src/a/mod.rs", "rpc-core/src/a/other.rs"]);
    }

    #[test]
    fn use_trees_are_unfolded_and_made_absolute() {
        let text =
            "use std::{fmt, io::{self as i, Read}}; use super::{pending::*, x}; use crate::a; fn f() { self::b() }";
        let source = Source::new("rpc-core/src/client/call.rs", text);
        let paths: Vec<_> = source.paths().into_iter().map(|(_, path)| path.join("::")).collect();
        let expected = [
            "std::fmt",
            "std::io::self",
            "std::io::Read",
            "crate::client::pending",
            "crate::client::x",
            "crate::a",
            "crate::client::call::b",
        ];
        assert_eq!(paths, expected);
    }
}
