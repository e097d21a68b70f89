//! The rules. Each names the place and the way out.

use crate::source::Source;

/// `broker` knows nothing of the framework, and the framework nothing of `broker`.
pub(crate) fn broker_and_framework_imports(sources: &[Source]) -> Vec<String> {
    const FRAMEWORK: [&str; 2] = ["client", "worker"];
    let mut complaints = Vec::new();
    for source in in_core(sources) {
        let own = source.module().first().copied().unwrap_or_default().to_owned();
        for (line, path) in source.paths() {
            let Some(target) = path.get(1).filter(|_| path[0] == "crate") else { continue };
            let is_forbidden = (own == "broker" && FRAMEWORK.contains(&target.as_str()))
                || (FRAMEWORK.contains(&own.as_str()) && target == "broker");
            if is_forbidden {
                complaints.push(source.complaint(line, &format!("{own} names {target}: they meet only on the socket")));
            }
        }
    }
    complaints
}

/// No runtime, socket, clock, thread or randomness where everything is an argument.
pub(crate) fn impurities(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in in_core(sources).filter(|source| is_pure(source)) {
        for (line, path) in source.paths() {
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            if let Some(impurity) = IMPURE_PATHS.iter().find(|impure| contains(&path, impure)) {
                let impurity = impurity.join("::");
                complaints.push(source.complaint(line, &format!("{impurity} in a pure place: make it an argument")));
            }
        }
        for token in &source.tokens {
            if IMPURE_WORDS.contains(&token.text.as_str()) {
                let words = format!("{} in a pure place: make it an argument", token.text);
                complaints.push(source.complaint(token.line, &words));
            }
        }
    }
    complaints
}

const IMPURE_WORDS: &[&str] =
    &["tokio", "rand", "getrandom", "fastrand", "SystemTime", "TcpStream", "TcpListener", "UdpSocket", "UnixStream"];
const IMPURE_PATHS: &[&[&str]] = &[
    &["std", "net"],
    &["std", "thread"],
    &["std", "fs"],
    &["std", "env"],
    &["std", "process"],
    &["Instant", "now"],
    &["Uuid", "new_v4"],
    &["Uuid", "now_v7"],
    &["RandomState", "new"],
];

/// The places that ARCHITECTURE calls pure, and every file that says so of itself.
fn is_pure(source: &Source) -> bool {
    const FOLDERS: [&str; 3] = ["routing", "wire", "broker/core"];
    const FILES: [&str; 2] = ["client/pending.rs", "envelope.rs"];
    let path = source.path.trim_start_matches("rpc-core/src/");
    let declared = || {
        let docs = source.lines.iter().take_while(|line| line.starts_with("//!"));
        docs.flat_map(|line| line.split(['.', '!'])).any(|sentence| sentence.trim() == "Pure")
    };
    FILES.contains(&path)
        || FOLDERS.iter().any(|folder| path.starts_with(&format!("{folder}/")) || path == format!("{folder}.rs"))
        || declared()
}

/// lapin's traps are contained in one file.
pub(crate) fn lapin_outside_its_file(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in in_core(sources).filter(|source| source.path != "rpc-core/src/connection/lapin.rs") {
        let tokens: Vec<_> = source.tokens.iter().map(|token| token.text.as_str()).collect();
        // In this file the name is the module's, and a `use` of the crate would be ambiguous.
        let is_module_here = contains(&tokens, &["mod", "lapin", ";"]) || imports_from_here(&tokens, "lapin");
        for (at, token) in source.tokens.iter().enumerate().filter(|(_, token)| token.text == "lapin") {
            let before = at.checked_sub(1).map_or("", |before| tokens[before]);
            let is_extern = before == "::"
                && at.checked_sub(2).is_none_or(|at| !crate::source::is_word(tokens[at]) || tokens[at] == "use");
            let is_module_path = before == "::" && !is_extern;
            if is_extern || !(is_module_here || is_module_path) {
                complaints.push(source.complaint(token.line, "lapin is named in connection/lapin.rs alone"));
            }
        }
    }
    complaints
}

/// Whether `name` is imported from a module of this crate.
fn imports_from_here(tokens: &[&str], name: &str) -> bool {
    let uses = tokens.iter().enumerate().filter(|(_, token)| **token == "use");
    uses.map(|(at, _)| &tokens[at + 1..]).any(|import| {
        matches!(import.first(), Some(&("self" | "super" | "crate")))
            && import.iter().take_while(|token| **token != ";").any(|token| *token == name)
    })
}

/// Nothing half done is committed.
pub(crate) fn unfinished(sources: &[Source]) -> Vec<String> {
    const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
    let mut complaints = Vec::new();
    for source in sources {
        for pair in source.tokens.windows(2) {
            if pair[1].text == "!" && MACROS.contains(&pair[0].text.as_str()) {
                complaints.push(source.complaint(pair[0].line, &format!("{}! is left", pair[0].text)));
            }
        }
    }
    complaints
}

/// Outside tests an `expect` stands below a comment that proves it.
pub(crate) fn unproved_expects(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let shipped =
        |source: &&Source| source.path.starts_with("rpc-core/src/") || source.path.starts_with("rpc-macros/src/");
    for source in sources.iter().filter(shipped) {
        for triple in source.tokens.windows(3) {
            let is_expect = triple[0].text == "." && matches!(triple[1].text.as_str(), "expect" | "unwrap");
            if is_expect && triple[2].text == "(" && !is_commented(source, triple[1].line) {
                let words = format!("{} without a comment that proves it", triple[1].text);
                complaints.push(source.complaint(triple[1].line, &words));
            }
        }
    }
    complaints
}

/// Whether the statement around a line (from 1) has a comment: on the line itself, or above, up to three lines.
fn is_commented(source: &Source, line: usize) -> bool {
    source.comments.iter().any(|comment| (line.saturating_sub(3)..=line).contains(&comment.line))
}

/// Above the limit a file is a question; the answer stands in the list, and goes when the file shrinks.
pub(crate) fn long_files(sources: &[Source], allowed: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources {
        let is_long = source.lines.len() > LINES_MAX;
        let reason = allowed.iter().find(|(path, _)| *path == source.path).map(|(_, reason)| *reason);
        let lines = source.lines.len();
        match (is_long, reason) {
            (true, None) => complaints.push(format!("{}: {lines} lines: split it, or say why not", source.path)),
            (true, Some("")) => complaints.push(format!("{}: the reason is empty", source.path)),
            (false, Some(_)) => complaints.push(format!("{}: {lines} lines: no longer needs a reason", source.path)),
            (true, Some(_)) | (false, None) => {}
        }
    }
    for (path, _) in allowed {
        if !sources.iter().any(|source| source.path == *path) {
            complaints.push(format!("{path}: is allowed to be long, but is not there"));
        }
    }
    complaints
}

const LINES_MAX: usize = 500;

/// A function of the libraries that does not fit on a screen, from the line of its `fn` to its closing brace.
pub(crate) fn long_functions(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| is_library(source)) {
        for (name, first, last) in functions(source) {
            let lines = last - first + 1;
            if lines > FUNCTION_LINES_MAX {
                let words = format!("{name} has {lines} lines, more than {FUNCTION_LINES_MAX}: split it");
                complaints.push(source.complaint(first, &words));
            }
        }
    }
    complaints
}

const FUNCTION_LINES_MAX: usize = 70;

/// Generated code, kept as the macro's tests expect it, has the length it has.
fn is_library(source: &Source) -> bool {
    ["rpc-core/", "rpc-macros/"].iter().any(|folder| source.path.starts_with(folder))
        && !source.path.starts_with("rpc-macros/src/golden/")
}

/// Every function with a body: its name, the line of its `fn`, and the line of its closing brace.
fn functions(source: &Source) -> impl Iterator<Item = (&str, usize, usize)> {
    let tokens = &source.tokens;
    (0..tokens.len()).filter_map(move |at| {
        let name = tokens.get(at + 1).filter(|name| tokens[at].text == "fn" && crate::source::is_word(&name.text))?;
        let mut depth = 0_usize;
        let mut is_body = false;
        for token in &tokens[at..] {
            match token.text.as_str() {
                ";" if depth == 0 => return None,
                "{" | "(" | "[" => {
                    is_body |= depth == 0 && token.text == "{";
                    depth += 1;
                }
                "}" | ")" | "]" => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 && is_body {
                        return Some((name.text.as_str(), tokens[at].line, token.line));
                    }
                }
                _ => {}
            }
        }
        None
    })
}

/// A dependency says in the line above what it is for.
pub(crate) fn dependencies_without_reason(path: &str, manifest: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut in_dependencies = false;
    let mut above = "";
    for (line, text) in manifest.lines().enumerate() {
        let text = text.trim();
        if text.starts_with('[') {
            // `[dependencies]`, `[target.'cfg(unix)'.dev-dependencies]`; a table of one dependency is one itself.
            in_dependencies = text.ends_with("dependencies]");
            if text.contains("dependencies.") && !above.starts_with("# ") {
                complaints.push(format!("{path}:{}: {text} has no reason above it", line + 1));
            }
        } else if in_dependencies && !text.is_empty() && !text.starts_with('#') && !above.starts_with("# ") {
            let name = text.split(['.', '=', ' ']).next().unwrap_or(text);
            complaints.push(format!("{path}:{}: {name} has no reason above it", line + 1));
        }
        above = text;
    }
    complaints
}

fn in_core(sources: &[Source]) -> impl Iterator<Item = &Source> {
    sources.iter().filter(|source| source.path.starts_with("rpc-core/src/"))
}

fn contains(words: &[&str], run: &[&str]) -> bool {
    words.windows(run.len()).any(|window| window == run)
}

mod tests {
    use super::*;

    type Rule = fn(&[Source]) -> Vec<String>;

    #[track_caller]
    fn refuses(rule: Rule, path: &str, text: &str) {
        let complaints = rule(&[Source::new(path, text)]);
        assert!(!complaints.is_empty(), "not refused in {path}: {text}");
    }

    #[track_caller]
    fn accepts(rule: Rule, path: &str, text: &str) {
        assert_eq!(rule(&[Source::new(path, text)]), Vec::<String>::new(), "{path}: {text}");
    }

    #[test]
    fn an_import_across_the_socket_is_refused() {
        let rule = broker_and_framework_imports;
        refuses(rule, "rpc-core/src/broker/mod.rs", "use crate::{error::Error, client::Client};");
        refuses(rule, "rpc-core/src/broker/core/queue.rs", "fn f() { crate::worker::run() }");
        refuses(rule, "rpc-core/src/broker/mod.rs", "use super::client;");
        refuses(rule, "rpc-core/src/client/call.rs", "use super::super::broker::Broker;");
        refuses(rule, "rpc-core/src/worker/mod.rs", "type B = crate::broker::Broker;");
        accepts(
            rule,
            "rpc-core/src/worker/mod.rs",
            "// crate::broker\nuse crate::error; #[cfg(test)] mod t { use crate::broker; }",
        );
        accepts(rule, "rpc-core/src/broker/mod.rs", "mod client; use crate::broker::client;");
    }

    #[test]
    fn an_impurity_is_refused() {
        for text in [
            "use tokio::sync::mpsc;",
            "fn f() { tokio::spawn(async {}); }",
            "use std::{fmt, net::SocketAddr};",
            "fn f() { let now = Instant::now(); }",
            "fn f() { let now = std::time::Instant::now(); }",
            "use std::time::SystemTime;",
            "use rand::Rng;",
            "fn f() { std::thread::sleep(d) }",
            "use uuid::Uuid; fn f() { Uuid::new_v4() }",
        ] {
            refuses(impurities, "rpc-core/src/routing/topic.rs", text);
            refuses(impurities, "rpc-core/src/wire/frame.rs", text);
            refuses(impurities, "rpc-core/src/broker/core/queue.rs", text);
            refuses(impurities, "rpc-core/src/client/pending.rs", text);
            refuses(impurities, "rpc-core/src/envelope.rs", text);
            refuses(impurities, "rpc-core/src/codec.rs", &format!("//! Bodies.\n//!\n//! Pure. No clock.\n{text}"));
            accepts(impurities, "rpc-core/src/broker/connection.rs", text);
            accepts(impurities, "rpc-core/src/routing/mod.rs", &format!("#[cfg(test)] mod tests {{ {text} }}"));
        }
        accepts(
            impurities,
            "rpc-core/src/routing/mod.rs",
            "// tokio\nfn f(now: Instant) -> &'static str { \"tokio\" }",
        );
    }

    #[test]
    fn lapin_elsewhere_is_refused() {
        let rule = lapin_outside_its_file;
        refuses(rule, "rpc-core/src/client/mod.rs", "use lapin::Channel;");
        refuses(rule, "rpc-core/src/client/mod.rs", "fn f(c: &::lapin::Channel) {}");
        refuses(rule, "rpc-core/src/error.rs", "enum E { L(#[from] lapin::Error) }");
        refuses(rule, "rpc-core/src/connection/mod.rs", "mod lapin; use ::lapin::Channel;");
        accepts(rule, "rpc-core/src/connection/lapin.rs", "use lapin::Channel;");
        accepts(
            rule,
            "rpc-core/src/connection/mod.rs",
            "mod lapin; use self::lapin::Link; fn f() { lapin::parse_uri() }",
        );
        let import = "use super::{lapin, native}; fn f(l: lapin::Link) {}";
        accepts(rule, "rpc-core/src/connection/carrier.rs", import);
        refuses(rule, "rpc-core/src/connection/carrier.rs", "use super::{lapin, native}; use ::lapin::Channel;");
        refuses(rule, "rpc-core/src/connection/carrier.rs", "use super::native; fn f(l: lapin::Channel) {}");
        accepts(rule, "rpc-core/src/client/mod.rs", "/// lapin\nuse crate::connection::Channel;");
    }

    #[test]
    fn what_is_left_to_do_is_refused() {
        for text in ["fn f() { todo!() }", "fn f() { unimplemented!(\"later\") }", "fn f() { dbg!(1); }"] {
            refuses(unfinished, "rpc-examples/examples/hello.rs", text);
        }
        accepts(unfinished, "rpc-core/src/lib.rs", "// todo!()\nfn todo() { !todo }");
    }

    #[test]
    fn an_expect_without_proof_is_refused() {
        refuses(unproved_expects, "rpc-core/src/a.rs", "fn f() {\n    g().expect(\"g\");\n}");
        refuses(unproved_expects, "rpc-macros/src/a.rs", "fn f() { g().unwrap(); }");
        accepts(unproved_expects, "rpc-core/src/a.rs", "fn f() {\n    // g is total.\n    g().expect(\"g\");\n}");
        accepts(unproved_expects, "tests/src/lib.rs", "fn f() { g().unwrap(); }");
    }

    #[test]
    fn a_long_file_needs_a_reason_and_a_short_one_has_none() {
        let long = [Source::new("rpc-core/src/a.rs", &"\n".repeat(LINES_MAX + 1))];
        let short = [Source::new("rpc-core/src/a.rs", &"\n".repeat(LINES_MAX))];
        assert_eq!(long_files(&long, &[]).len(), 1);
        assert_eq!(long_files(&long, &[("rpc-core/src/a.rs", "")]).len(), 1);
        assert_eq!(long_files(&long, &[("rpc-core/src/a.rs", "a table")]), Vec::<String>::new());
        assert_eq!(long_files(&short, &[]), Vec::<String>::new());
        assert_eq!(long_files(&short, &[("rpc-core/src/a.rs", "a table")]).len(), 1);
        assert_eq!(long_files(&short, &[("rpc-core/src/b.rs", "gone")]).len(), 1);
    }

    #[test]
    fn a_long_function_is_refused_and_a_short_one_is_not_on_the_list() {
        let function =
            |lines: usize| format!("impl A {{\nfn b(c: [u8; 2])\nwhere D: E {{{}}}\n}}", "\n".repeat(lines - 2));
        let source = |path: &str, lines| [Source::new(path, &function(lines))];
        let (long, short) =
            (source("rpc-core/src/a.rs", FUNCTION_LINES_MAX + 1), source("rpc-core/src/a.rs", FUNCTION_LINES_MAX));
        assert_eq!(long_functions(&long).len(), 1);
        assert_eq!(long_functions(&short), Vec::<String>::new());
        for path in ["rpc-macros/src/golden/a.rs", "tests/src/a.rs"] {
            assert_eq!(long_functions(&source(path, FUNCTION_LINES_MAX + 1)), Vec::<String>::new());
        }
        let declared = format!("trait A {{ fn b();{} fn c(d: fn(u8)) {{}} }}", "\n".repeat(FUNCTION_LINES_MAX + 1));
        assert_eq!(long_functions(&[Source::new("rpc-core/src/a.rs", &declared)]), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_without_a_reason_is_refused() {
        let check = |text| dependencies_without_reason("Cargo.toml", text).len();
        assert_eq!(check("[package]\nname = \"x\"\n[dependencies]\n# Names.\nuuid.workspace = true\n"), 0);
        assert_eq!(check("[dependencies]\nuuid.workspace = true\n"), 1);
        assert_eq!(check("[dependencies]\n# Names.\nuuid = \"1\"\nserde = { version = \"1\" }\n"), 1);
        assert_eq!(check("[target.'cfg(unix)'.dev-dependencies]\nlibc = \"0.2\"\n"), 1);
        assert_eq!(check("[dependencies.uuid]\nversion = \"1\"\n"), 1);
    }
}
