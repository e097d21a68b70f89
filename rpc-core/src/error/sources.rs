//! No error type prints its source: a report prints the whole chain, and would show that text twice.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::Error;
use crate::{CallError, PoolStats, ShutdownError, ShutdownReport};

/// The error types that have a source. Each has a sample in [`samples`].
const WITH_SOURCE: [&str; 3] = ["BrokerError", "CallError", "ShutdownError"];

fn samples() -> Vec<(&'static str, Box<dyn std::error::Error>)> {
    let reason = || Error::Closed { reason: "THE SOURCE".to_owned() };
    let report = ShutdownReport { aborted: 1, stats: PoolStats::default() };
    vec![
        #[cfg(feature = "broker")]
        (
            "BrokerError",
            Box::new(crate::broker::BrokerError::Bind {
                address: ([127, 0, 0, 1], 5_672).into(),
                source: std::io::Error::other("THE SOURCE"),
            }),
        ),
        ("CallError", Box::new(CallError::<Error>::service("stock", "take", reason()))),
        ("CallError", Box::new(CallError::<Error>::topology("stock", "take", reason()))),
        ("ShutdownError", Box::new(ShutdownError { report, error: reason() })),
    ]
}

#[test]
fn no_error_repeats_its_source() {
    for (name, error) in samples() {
        let source = error.source().unwrap_or_else(|| panic!("{name} has no source"));
        assert!(source.to_string().contains("THE SOURCE"), "{name}: {source}");
        assert!(!error.to_string().contains("THE SOURCE"), "{name}: {error}");
    }
}

#[test]
fn every_error_type_with_a_source_has_a_sample() {
    let mut found = BTreeSet::new();
    for directory in ["src", "../rpc-macros/src", "../rpc-examples/src", "../rpc-examples/examples"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        // This file's own sample would be found, too.
        for file in rust_files(&directory).iter().filter(|file| !file.ends_with("error/sources.rs")) {
            let text = fs::read_to_string(file).expect("a readable source file");
            found.extend(types_with_source(&text));
        }
    }
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), WITH_SOURCE);
    let sampled: BTreeSet<_> = samples().into_iter().map(|(name, _)| name).collect();
    for name in WITH_SOURCE {
        assert!(sampled.contains(name) || !cfg!(feature = "broker"), "{name} has no sample");
    }
}

#[test]
fn sources_are_found_in_definitions_and_in_implementations() {
    let text = "\
#[derive(Debug, thiserror::Error)]
pub(crate) enum Plain {
    #[error(\"no source\")]
    Alone(u8),
}
#[derive(thiserror::Error, Debug)]
#[error(\"x\")]
pub struct Named<T> {
    source: T,
}
    #[derive(Debug, thiserror::Error)]
    enum Marked {
        A(#[from] std::io::Error),
    }
impl std::error::Error for ByHand {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        None
    }
}
impl std::error::Error for Bare {}
";
    assert_eq!(types_with_source(text), ["Named", "Marked", "ByHand"]);
}

/// The error types in a source file that have a source, whether thiserror or an `impl` makes them errors.
fn types_with_source(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let item_of = |(start, line): (usize, &&str)| {
        let code = line.trim_start();
        let is_derived = code.starts_with("#[derive(") && code.contains("thiserror::Error");
        let is_implemented = code.starts_with("impl") && code.contains("error::Error for ");
        (is_derived || is_implemented).then(|| item(&lines[start..]))
    };
    let items = lines.iter().enumerate().filter_map(item_of);
    items.filter(|item| has_source(item)).map(|item| name_of(&item).to_owned()).collect()
}

/// The lines of the item that begins here, up to the first one that closes its indentation.
fn item(lines: &[&str]) -> String {
    let indentation = lines[0].len() - lines[0].trim_start().len();
    let is_end = |line: &&&str| {
        let depth = line.len() - line.trim_start().len();
        depth <= indentation && (line.ends_with('}') || line.ends_with(';'))
    };
    let length = lines.iter().position(|line| is_end(&line)).map_or(lines.len(), |end| end + 1);
    lines[..length].join("\n")
}

fn has_source(item: &str) -> bool {
    ["#[source]", "#[from]", " source: ", "fn source("].iter().any(|sign| item.contains(sign))
}

fn name_of(item: &str) -> &str {
    let after = ["error::Error for ", "enum ", "struct "].iter().find_map(|word| Some(item.split_once(word)?.1));
    after.unwrap_or_default().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

/// Empty where the directory is missing, as in the package.
fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
