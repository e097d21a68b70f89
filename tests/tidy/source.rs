//! A Rust file as the rules see it: code tokens without literals and test modules, and every comment.
//!
//! proc-macro2 finds the tokens. It drops comments, so they are read from the gaps between the tokens' spans.

use std::ops::Range;

use proc_macro2::{Delimiter, LineColumn, Span, TokenStream, TokenTree};

/// A file.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// From the root of the workspace.
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
    /// Of the code that is not for tests.
    pub(crate) tokens: Vec<Token>,
    /// Of the whole file, tests included.
    pub(crate) comments: Vec<Text>,
    /// String literals of the whole file, tests included.
    pub(crate) strings: Vec<Text>,
    /// Files named by `#[cfg(test)] mod name;`.
    test_modules: Vec<String>,
}

/// An identifier or a number, `::`, or one other character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// A comment with its marks, or a string literal without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Source {
    /// # Panics
    /// When the text has no tokens: its brackets do not match, or a literal does not end.
    pub(crate) fn new(path: impl Into<String>, text: &str) -> Self {
        let path = path.into();
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut lexed = Lexed::new(text);
        lexed.stream(stream);
        lexed.gap(text.len());
        let (tokens, test_modules) = without_tests(&lexed.tokens);
        let lines = text.lines().map(str::to_owned).collect();
        Self { path, lines, tokens, comments: lexed.comments, strings: lexed.strings, test_modules }
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

/// The tokens, comments and strings found so far, from the file's first byte to `end`.
struct Lexed<'a> {
    file: &'a str,
    /// The bytes at which the lines begin.
    lines: Vec<usize>,
    /// Of each line: whether its columns are its bytes.
    are_ascii: Vec<bool>,
    end: usize,
    tokens: Vec<Token>,
    comments: Vec<Text>,
    strings: Vec<Text>,
}

impl<'a> Lexed<'a> {
    fn new(file: &'a str) -> Self {
        let lines = std::iter::once(0).chain(file.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let are_ascii = file.split('\n').map(str::is_ascii).collect();
        Self { file, lines, are_ascii, end: 0, tokens: Vec::new(), comments: Vec::new(), strings: Vec::new() }
    }

    fn stream(&mut self, stream: TokenStream) {
        let mut is_lifetime = false;
        for tree in stream {
            // A doc comment is an attribute whose tokens all have the comment's span.
            let span = self.range(tree.span());
            if span.end <= self.end {
                continue;
            }
            if self.file[span.clone()].starts_with("//") || self.file[span.clone()].starts_with("/*") {
                self.gap(span.start);
                self.gap(span.end);
                continue;
            }
            match tree {
                TokenTree::Group(group) => {
                    let [open, close] = match group.delimiter() {
                        Delimiter::Parenthesis => ["(", ")"],
                        Delimiter::Brace => ["{", "}"],
                        Delimiter::Bracket => ["[", "]"],
                        Delimiter::None => ["", ""],
                    };
                    self.token(group.span_open(), open);
                    self.stream(group.stream());
                    self.token(group.span_close(), close);
                }
                TokenTree::Punct(punct) if punct.as_char() == '\'' => {
                    self.passed(span);
                    is_lifetime = true;
                    continue;
                }
                TokenTree::Punct(punct) => self.punct(punct.span(), punct.as_char()),
                TokenTree::Ident(_) if is_lifetime => self.passed(span),
                TokenTree::Ident(ident) => self.token(ident.span(), &ident.to_string()),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    if text.starts_with(|first: char| first.is_ascii_digit()) {
                        self.token(literal.span(), &text);
                    } else {
                        let line = self.line(span.start);
                        self.passed(span);
                        self.strings.extend(unquoted(&text).map(|text| Text { line, text: text.to_owned() }));
                    }
                }
            }
            is_lifetime = false;
        }
    }

    fn punct(&mut self, span: Span, character: char) {
        let range = self.range(span);
        if character == ':'
            && range.start == self.end
            && let Some(last) = self.tokens.last_mut().filter(|last| last.text == ":")
        {
            last.text.push(':');
            self.end = range.end;
            return;
        }
        self.token(span, &character.to_string());
    }

    fn token(&mut self, span: Span, text: &str) {
        let range = self.range(span);
        let line = self.line(range.start);
        self.passed(range);
        self.tokens.push(Token { line, text: text.to_owned() });
    }

    fn passed(&mut self, range: Range<usize>) {
        self.gap(range.start);
        self.end = range.end;
    }

    /// Reads the comments up to `until`.
    fn gap(&mut self, until: usize) {
        while self.end < until {
            let rest = &self.file[self.end..until];
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                block_comment(rest)
            } else {
                self.end += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            };
            self.comments.push(Text { line: self.line(self.end), text: rest[..length].to_owned() });
            self.end += length;
        }
    }

    /// The bytes of a span. Its own `byte_range` takes a minute for the workspace.
    fn range(&self, span: Span) -> Range<usize> {
        let byte = |at: LineColumn| {
            let begin = self.lines[at.line - 1];
            if self.are_ascii[at.line - 1] {
                return begin + at.column;
            }
            let line = &self.file[begin..];
            begin + line.char_indices().nth(at.column).map_or(line.len(), |(byte, _)| byte)
        };
        byte(span.start())..byte(span.end())
    }

    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }
}

/// How long the comment is that `text` begins with: block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The text of a string literal; none of a character or a byte.
fn unquoted(literal: &str) -> Option<&str> {
    let text = literal.trim_start_matches(['b', 'c', 'r']).trim_matches('#');
    text.strip_prefix('"')?.strip_suffix('"')
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
    fn comments_and_strings_are_kept_for_the_rules_of_the_words() {
        let text = "//! Module.\n/// Item: `it's`.\nfn a() { b(\"c // d\", 'e', r#\"f\"#) } // end\n/* g /* h */ i */\n#[doc = \"j\"]";
        let source = Source::new("x.rs", text);
        let comments: Vec<_> = source.comments.iter().map(|comment| (comment.line, comment.text.as_str())).collect();
        assert_eq!(comments, [(1, "//! Module."), (2, "/// Item: `it's`."), (3, "// end"), (4, "/* g /* h */ i */")]);
        let strings: Vec<_> = source.strings.iter().map(|string| (string.line, string.text.as_str())).collect();
        assert_eq!(strings, [(3, "c // d"), (3, "f"), (5, "j")]);
        assert_eq!(source.tokens.iter().filter(|token| token.text == "doc").count(), 1);
    }

    #[test]
    fn paths_and_lifetimes_are_told_apart() {
        assert_eq!(words("a::<'b, C>(x: ::d::E)").join(" "), "a :: < , C > ( x : :: d :: E )");
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
