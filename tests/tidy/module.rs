//! The modules of a file: which items each defines, what it imports, and which paths it names.

use std::collections::BTreeSet;

use crate::source::{Token, is_word};

/// The file's own module, or one that is written inside it.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// From the file's own module.
    pub(crate) path: Vec<String>,
    pub(crate) items: BTreeSet<String>,
    pub(crate) imports: Vec<Import>,
    /// Outside imports: every path, and every word alone that may be a path.
    pub(crate) names: Vec<Name>,
}

/// One leaf of a `use`.
#[derive(Debug)]
pub(crate) struct Import {
    /// The name it has here; none for a glob.
    pub(crate) name: Option<String>,
    pub(crate) path: Name,
    /// With any visibility of its own: a re-export.
    pub(crate) is_public: bool,
}

/// A path as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl Import {
    /// The path that it names: a re-export names nothing, and a glob no item.
    pub(crate) fn named(&self) -> Option<&Name> {
        (!self.is_public && self.name.is_some()).then_some(&self.path)
    }
}

/// Reads a file's tokens, the file's own module first.
pub(crate) fn read(tokens: &[Token]) -> Vec<Module> {
    let mut reader = Reader { tokens, at: 0, modules: Vec::new() };
    reader.module(Vec::new());
    reader.modules
}

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    modules: Vec<Module>,
}

impl Reader<'_> {
    /// Reads to the brace that closes the module, or to the file's end.
    fn module(&mut self, path: Vec<String>) {
        let own = self.modules.len();
        self.modules.push(Module { path, ..Module::default() });
        // Brackets open around the token; what is inside a block is no item of the module.
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            let is_path_start = self.text(-1) != "::" && self.text(-1) != ".";
            match self.text(0) {
                "use" => {
                    let is_public = matches!(self.text(-1), "pub" | ")");
                    self.at += 1;
                    self.use_tree(own, &[], is_public);
                }
                "mod" if self.text(2) == "{" && depth == 0 => {
                    let path = self.modules[own].path.iter().cloned().chain([self.text(1).to_owned()]).collect();
                    self.at += 3;
                    self.module(path);
                }
                "mod" => self.at += 2,
                "{" | "(" | "[" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" | ")" | "]" => {
                    self.at += 1;
                    match depth.checked_sub(1) {
                        Some(less) => depth = less,
                        None if self.modules[own].path.is_empty() => {}
                        None => return,
                    }
                }
                word if is_word(word) && is_path_start => {
                    let (line, word) = (self.tokens[self.at].line, word.to_owned());
                    if depth == 0 && DEFINITIONS.contains(&word.as_str()) {
                        self.define(own);
                    }
                    let segments = self.segments();
                    // `field: value` and `parameter: Type` name no item; neither do keywords, which resolve to none.
                    if segments.len() > 1 || self.text(0) != ":" {
                        self.modules[own].names.push(Name { line, segments });
                    }
                }
                word if is_word(word) => drop(self.segments()),
                _ => self.at += 1,
            }
        }
    }

    /// Notes the item whose keyword stands here.
    fn define(&mut self, own: usize) {
        let name = match (self.text(0), self.text(1), self.text(2)) {
            ("macro_rules", "!", name) | ("static", "mut", name) => name,
            // `const fn`, `fn(…)`, `const _`.
            (_, name, _) if is_word(name) && !DEFINITIONS.contains(&name) => name,
            _ => return,
        };
        let name = name.to_owned();
        self.modules[own].items.insert(name);
    }

    /// `a::b::c` from here on, and steps behind it. A turbofish ends it.
    fn segments(&mut self) -> Vec<String> {
        let mut segments = Vec::new();
        while is_word(self.text(0)) {
            segments.push(self.text(0).to_owned());
            self.at += 1;
            if self.text(0) != "::" {
                break;
            }
            self.at += 1;
        }
        segments
    }

    /// One tree of a `use`; steps behind it.
    fn use_tree(&mut self, own: usize, prefix: &[String], is_public: bool) {
        let is_extern = self.text(0) == "::" && prefix.is_empty();
        self.at += usize::from(self.text(0) == "::");
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        let mut segments: Vec<_> = prefix.iter().cloned().chain(self.segments()).collect();
        let name = match self.text(0) {
            "{" => {
                self.at += 1;
                while !matches!(self.text(0), "}" | "") {
                    match self.text(0) {
                        "," => self.at += 1,
                        _ => self.use_tree(own, &segments, is_public),
                    }
                }
                self.at += 1;
                return;
            }
            "*" => {
                self.at += 1;
                None
            }
            renamed => {
                if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
                    segments.pop();
                }
                let name = if renamed == "as" {
                    self.text(1).to_owned()
                } else {
                    segments.last().cloned().unwrap_or_default()
                };
                self.at += if renamed == "as" { 2 } else { usize::from(segments.is_empty()) };
                Some(name)
            }
        };
        if !is_extern && !segments.is_empty() {
            self.modules[own].imports.push(Import { name, path: Name { line, segments }, is_public });
        }
    }

    fn text(&self, offset: isize) -> &str {
        self.at.checked_add_signed(offset).and_then(|at| self.tokens.get(at)).map_or("", |token| token.text.as_str())
    }
}

/// The words before the name of an item.
const DEFINITIONS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];
