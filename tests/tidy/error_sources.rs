//! Every error type that has a source has a sample in `rpc-core/src/error/sources.rs`, whose test shows that it does not print
//! that source itself.

use std::collections::BTreeSet;

use crate::source::Source;

/// The error types of the crates that have a source and no sample, and the samples whose type is gone.
pub(crate) fn complaints(samples: &Source, sources: &[Source]) -> Vec<String> {
    let crates = ["rpc-core/src/", "rpc-macros/src/", "rpc-examples/"];
    let of_crates = |source: &&Source| crates.iter().any(|folder| source.path.starts_with(folder));
    let found: BTreeSet<_> =
        sources.iter().filter(of_crates).flat_map(|source| types_with_source(&source.lines.join("\n"))).collect();
    // A sample is a pair: the type's name as a literal, and the error.
    let sampled: BTreeSet<_> = samples.strings.iter().map(|string| string.text.clone()).collect();
    let sampled: BTreeSet<_> = sampled.into_iter().filter(|text| text.ends_with("Error")).collect();
    let missing = found.difference(&sampled).map(|name| format!("{SAMPLES}: {name} has a source and no sample"));
    let gone = sampled.difference(&found).map(|name| format!("{SAMPLES}: no error type {name} has a source"));
    missing.chain(gone).collect()
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

/// A file of tests, which the other rules do not see.
pub(crate) const SAMPLES: &str = "rpc-core/src/error/sources.rs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_a_sample_and_a_sample_without_a_type_are_found() {
        let samples = Source::new(SAMPLES, r#"fn samples() -> [&'static str; 2] { ["KnownError", "GoneError"] }"#);
        let errors = "#[derive(Debug, thiserror::Error)]\npub enum KnownError { A(#[from] std::io::Error) }\n\
                      #[derive(Debug, thiserror::Error)]\npub struct NewError { source: std::io::Error }\n";
        let found = complaints(&samples, &[Source::new("rpc-core/src/x.rs", errors)]);
        assert!(
            matches!(&found[..], [new, gone] if new.contains("NewError") && gone.contains("GoneError")),
            "{found:?}"
        );
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
}
