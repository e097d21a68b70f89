//! The invariants a compiler cannot hold, read from the sources.
//!
//! Each rule is a function from sources to complaints, and has a test that proves that it can fail.
//!
//! ```text
//!  *.rs ──Source (tokens without literals and test modules; comments)──► rules::*, circles::*  ──► complaints
//!  Cargo.toml ─────────────────────────────────────────────────────────► rules::dependencies_without_reason
//!  *.rs, *.md, scripts ────────────────────────────────────────────────► words::*, links::*
//! ```

#![allow(clippy::unwrap_used, reason = "a source tree that cannot be read fails the test")]

mod circles;
#[path = "../cost/src/table.rs"]
#[allow(dead_code, reason = "the cost gate writes and judges by it; its tests run here")]
mod cost;
mod error_sources;
#[path = "../it/kill_points/table.rs"]
#[allow(dead_code, reason = "it measures more of it than is looked at here")]
mod kill_points;
mod links;
mod module;
mod rules;
mod source;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use source::Source;

/// Files above the limit, and why they are.
const LONG_FILES: &[(&str, &str)] =
    &[("rpc-core/src/connection/lapin.rs", "the one place that names lapin: splitting it would make two")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of the workspace")
}

/// Every Rust file of the workspace's members.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let mut files = Vec::new();
    for member in ["rpc-core", "rpc-macros", "rpc-examples", "tests"] {
        collect(&root().join(member), "rs", &mut files);
    }
    let sources: Vec<_> = files.into_iter().map(|file| Source::new(relative(&file), &read(&file))).collect();
    assert!(sources.len() > 20, "only {} sources found below {}", sources.len(), root().display());
    source::without_test_files(sources)
});

fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        // Python's environment and builds are no sources; failing examples of the macro break rules on purpose.
        if entry.is_dir() && !name.starts_with('.') && !matches!(&*name, "target" | "ui" | "node_modules") {
            collect(&entry, extension, files);
        } else if entry.extension().is_some_and(|found| found == extension) {
            files.push(entry);
        }
    }
}

/// Scripts without an extension.
const SCRIPTS: [&str; 4] = [".ci/run", "tests/run", "tests/with-rabbitmq", "tests/fuzz/run"];

/// The repository's files with one of these extensions, the failing examples of the macro included.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for extension in extensions {
        for folder in ["", "tests/ui", ".ci", ".cargo", ".github"] {
            collect(&root().join(folder), extension, &mut files);
        }
    }
    files
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

#[test]
fn broker_and_framework_meet_only_on_the_socket() {
    assert_none(&rules::broker_and_framework_imports(&SOURCES));
}

#[test]
fn pure_places_have_no_clock_sockets_threads_or_randomness() {
    assert_none(&rules::impurities(&SOURCES));
}

#[test]
fn lapin_is_named_in_one_file() {
    assert_none(&rules::lapin_outside_its_file(&SOURCES));
}

#[test]
fn nothing_is_left_to_do() {
    assert_none(&rules::unfinished(&SOURCES));
}

#[test]
fn every_expect_outside_tests_is_proved() {
    assert_none(&rules::unproved_expects(&SOURCES));
}

#[test]
fn the_guide_shows_what_is_promised_when_something_is_killed() {
    let chapter = read(&root().join("rpc-core/docs/guarantees.md"));
    let shown = kill_points::marked(&chapter).map(|range| &chapter[range]);
    let promised = kill_points::render(kill_points::TABLE);
    assert_eq!(shown, Some(promised.as_str()), "tests/run --kill-points measures and writes it");
}

#[test]
fn every_error_type_with_a_source_has_a_sample() {
    let samples = Source::new(error_sources::SAMPLES, &read(&root().join(error_sources::SAMPLES)));
    assert_none(&error_sources::complaints(&samples, &SOURCES));
}

#[test]
fn long_files_have_a_reason() {
    assert_none(&rules::long_files(&SOURCES, LONG_FILES));
}

#[test]
fn no_function_is_longer_than_the_limit() {
    assert_none(&rules::long_functions(&SOURCES));
}

#[test]
fn no_circle_of_imports() {
    assert_none(&circles::circles(&SOURCES));
}

#[test]
fn no_sentence_begins_with_a_free_relative() {
    let mut found = Vec::new();
    // Its own file quotes them.
    for file in files(&["rs"]).iter().filter(|file| !file.ends_with("tidy/words.rs")) {
        found.extend(words::in_rust(&Source::new(relative(file), &read(file))));
    }
    for file in files(&["md"]) {
        found.extend(words::in_markdown(&relative(&file), &read(&file)));
    }
    for file in files(&["bash", "py", "toml", "txt", "yml"]).into_iter().chain(SCRIPTS.map(|path| root().join(path))) {
        found.extend(words::in_script(&relative(&file), &read(&file), "#"));
    }
    for file in files(&["js", "mjs"]) {
        found.extend(words::in_script(&relative(&file), &read(&file), "//"));
    }
    assert_none(&words::complaints(&found));
}

#[test]
fn links_between_documents_lead_somewhere() {
    let files = files(&["md"]);
    assert!(files.len() > 10, "{files:?}");
    let broken = |file: &PathBuf| links::broken_links(root(), &relative(file), &read(file));
    assert_none(&files.iter().flat_map(broken).collect::<Vec<_>>());
}

#[test]
fn raised_rows_of_the_cost_table_have_a_reason() {
    let table = cost::Table::parse(&read(&root().join("tests/cost/table.md")));
    assert_eq!(table.map(|table| table.rows.len()), Ok(18));
}

#[test]
fn every_dependency_has_a_reason() {
    for member in ["rpc-core", "rpc-macros", "rpc-examples", "tests"] {
        let manifest = root().join(member).join("Cargo.toml");
        assert_none(&rules::dependencies_without_reason(&relative(&manifest), &read(&manifest)));
    }
}
