//! No circle of imports between the files of a crate.
//!
//! An edge goes from the file that names an item to the file that defines it. Re-exports and globs are resolved. `mod`,
//! re-exports and test code are no edges. Neither is a name that a file takes from a module above its own: a module and
//! its children are one thing, and the way down counts. Methods are not read, because their type decides.
//!
//! ```text
//!  Source ──module::read──► modules (items, imports, names) ──Crate::resolve──► edges ──Graph::circles──► complaints
//! ```

use std::collections::BTreeMap;

use crate::{
    module::{self, Import, Module, Name},
    source::Source,
};

/// The crates whose files are looked at. Programs below `src/bin` are crates of their own.
const CRATES: [&str; 4] = ["rpc-core/src/", "rpc-macros/src/", "rpc-examples/src/", "tests/src/"];

/// Complains about every file in a circle.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in CRATES {
        let is_own = |source: &&Source| source.path.strip_prefix(folder).is_some_and(|path| !path.starts_with("bin/"));
        let graph = Crate::new(sources.iter().filter(is_own)).graph();
        for file in graph.in_circles() {
            complaints.push(format!("{file}: in a circle of imports: {}", graph.shortest_circle(file)));
        }
    }
    complaints
}

/// The modules of a crate, by path.
struct Crate<'a> {
    modules: BTreeMap<Vec<String>, (&'a str, Module)>,
}

/// A resolved path.
#[derive(Debug, Clone, PartialEq)]
enum Target<'a> {
    /// The file that defines the item.
    Item(&'a str),
    Module(Vec<String>),
}

impl<'a> Crate<'a> {
    fn new(sources: impl Iterator<Item = &'a Source>) -> Self {
        let mut modules = BTreeMap::new();
        for source in sources {
            let path: Vec<String> = source.module().into_iter().map(str::to_owned).collect();
            for module in module::read(&source.tokens) {
                let path = path.iter().chain(&module.path).cloned().collect();
                modules.insert(path, (source.path.as_str(), module));
            }
        }
        Self { modules }
    }

    fn graph(&self) -> Graph<'a> {
        let mut graph = Graph::default();
        for (path, (file, module)) in &self.modules {
            for Name { line, segments } in module.names.iter().chain(module.imports.iter().filter_map(Import::named)) {
                if let Some(Target::Item(definer)) = self.resolve(path, path, segments, 0)
                    && definer != *file
                    && !is_below(file, definer)
                {
                    let words = format!("line {line} names {}", segments.join("::"));
                    graph.edges.entry(file).or_default().entry(definer).or_insert(words);
                }
            }
        }
        graph
    }

    /// Resolves a path that stands in the module `from`, seen from `within`.
    fn resolve(&self, from: &[String], within: &[String], segments: &[String], depth: usize) -> Option<Target<'a>> {
        let mut segments = segments.iter().map(String::as_str).peekable();
        let mut place = from.to_vec();
        let mut is_relative = false;
        while let Some(&segment) = segments.peek() {
            match segment {
                "crate" => place.clear(),
                "super" => drop(place.pop()),
                "self" => {}
                _ => break,
            }
            is_relative = true;
            segments.next();
        }
        if !is_relative && segments.peek().is_none() {
            return None;
        }
        while let Some(segment) = segments.next() {
            match self.look_up(&place, within, segment, segments.peek().is_none(), depth)? {
                Target::Module(module) => place = module,
                // Variants and associated items are defined with their type.
                item @ Target::Item(_) => return Some(item),
            }
        }
        Some(Target::Module(place))
    }

    /// Finds a name in a module: its items and modules first, then its imports, then its globs.
    fn look_up(
        &self,
        place: &[String],
        within: &[String],
        name: &str,
        is_last: bool,
        depth: usize,
    ) -> Option<Target<'a>> {
        // Two globs may import each other.
        if depth > DEPTH_MAX {
            return None;
        }
        let child: Vec<String> = place.iter().cloned().chain([name.to_owned()]).collect();
        let is_module = self.modules.contains_key(&child);
        let Some((file, module)) = self.modules.get(place) else { return is_module.then_some(Target::Module(child)) };
        if module.items.contains(name) && (is_last || !is_module) {
            return Some(Target::Item(file));
        }
        if is_module {
            return Some(Target::Module(child));
        }
        let is_inside = within.starts_with(place);
        let visible = || module.imports.iter().filter(|import| import.is_public || is_inside);
        let named = visible().filter(|import| import.name.as_deref() == Some(name));
        // `use codec::codec` would find itself; the path of an import begins with another name of the module.
        let mut found: Vec<_> =
            named.filter_map(|import| self.resolve(place, place, &import.path.segments, depth + 1)).collect();
        found.sort_by_key(|target| matches!(target, Target::Item(_)) != is_last);
        found.into_iter().next().or_else(|| {
            visible().filter(|import| import.name.is_none()).find_map(|glob| {
                match self.resolve(place, place, &glob.path.segments, depth + 1)? {
                    Target::Module(module) if module != place => {
                        self.look_up(&module, within, name, is_last, depth + 1)
                    }
                    _ => None,
                }
            })
        })
    }
}

/// Whether a file's module lies below the module of `ancestor`.
fn is_below(file: &str, ancestor: &str) -> bool {
    let folder = ["/mod.rs", "/lib.rs", ".rs"].iter().find_map(|end| ancestor.strip_suffix(end)).unwrap_or(ancestor);
    file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Longer chains of re-exports are a circle of them.
const DEPTH_MAX: usize = 16;

/// Files, and why one needs another.
#[derive(Debug, Default)]
struct Graph<'a> {
    edges: BTreeMap<&'a str, BTreeMap<&'a str, String>>,
}

impl<'a> Graph<'a> {
    fn in_circles(&self) -> Vec<&'a str> {
        self.edges.keys().copied().filter(|file| self.way_back(file).is_some()).collect()
    }

    /// The files of the shortest way from a file to itself, both ends included.
    fn way_back(&self, file: &str) -> Option<Vec<&'a str>> {
        let (file, _) = self.edges.get_key_value(file)?;
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = std::collections::VecDeque::from([*file]);
        while let Some(at) = next.pop_front() {
            for to in self.edges.get(at).into_iter().flat_map(BTreeMap::keys) {
                if to == file {
                    let mut way = vec![*file, at];
                    while let Some(before) = came_from.get(way[way.len() - 1]).filter(|_| way[way.len() - 1] != *file) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(if at == *file { vec![file, file] } else { way });
                }
                if !came_from.contains_key(to) {
                    came_from.insert(to, at);
                    next.push_back(to);
                }
            }
        }
        None
    }

    fn shortest_circle(&self, file: &str) -> String {
        let way = self.way_back(file).unwrap_or_default();
        let step = |pair: &[&str]| format!("\n      {} → {} ({})", pair[0], pair[1], self.edges[pair[0]][pair[1]]);
        way.windows(2).map(step).collect()
    }
}

mod tests {
    use super::*;

    #[track_caller]
    fn in_circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> =
            files.iter().map(|(path, text)| Source::new(format!("rpc-core/src/{path}"), text)).collect();
        let found = Crate::new(sources.iter()).graph().in_circles().into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(circles(&sources).len(), found.len());
        found.into_iter().map(|path| path.trim_start_matches("rpc-core/src/").to_owned()).collect()
    }

    const A: (&str, &str) = ("a.rs", "pub struct A; fn f(b: crate::b::B) {}");

    #[test]
    fn two_files_that_name_each_others_items_are_a_circle() {
        for b in [
            "use crate::a::A; pub struct B;",
            "pub struct B; fn f() -> super::a::A { super::a::A }",
            "pub struct B; impl crate::a::A { fn g() {} }",
            "pub struct B; use super::a; fn f(a: &a::A) {}",
            "pub struct B; use super::*; fn f(a: &a::A) {}",
            "pub struct B; fn f() { use crate::{a::{self, A as C}, b}; }",
            "pub struct B; macro_rules! m { () => { $crate::a::A } }",
            "mod inner { fn f(a: super::super::a::A) {} } pub struct B;",
        ] {
            assert_eq!(in_circles(&[("lib.rs", "mod a; mod b;"), A, ("b.rs", b)]), ["a.rs", "b.rs"], "{b}");
        }
    }

    #[test]
    fn a_circle_of_three_files_is_found_and_shown() {
        let files = [
            ("a.rs", "pub struct A; fn f(b: crate::b::B) {}"),
            ("b.rs", "pub struct B; fn f(c: crate::c::C) {}"),
            ("c.rs", "pub struct C;\nfn f(a: crate::a::A) {}"),
            ("d.rs", "pub struct D; fn f(a: crate::a::A) {}"),
        ];
        assert_eq!(in_circles(&files), ["a.rs", "b.rs", "c.rs"]);
        let sources = files.map(|(path, text)| Source::new(format!("rpc-core/src/{path}"), text));
        let complaint = &circles(&sources)[0];
        assert!(complaint.contains("rpc-core/src/c.rs → rpc-core/src/a.rs (line 2 names crate::a::A)"), "{complaint}");
    }

    #[test]
    fn re_exports_and_globs_lead_to_the_file_that_defines_the_item() {
        let exported = [("lib.rs", "mod a; mod b; pub use a::A; pub(crate) use self::b::*;"), A];
        for b in ["pub struct B; fn f(a: crate::A) {}", "pub struct B; use crate::*; fn f(a: A) {}"] {
            assert_eq!(in_circles(&[exported[0], exported[1], ("b.rs", b)]), ["a.rs", "b.rs"], "{b}");
        }
        let through_the_parent = [
            ("x/mod.rs", "mod a; mod b; use a::A; use b::B;"),
            ("x/a.rs", "use super::*; pub struct A(B);"),
            ("x/b.rs", "use super::*; pub struct B(A);"),
        ];
        assert_eq!(in_circles(&through_the_parent), ["x/a.rs", "x/b.rs"]);
    }

    #[test]
    fn a_re_export_is_an_edge_only_where_its_name_is_used() {
        let other = ("y.rs", "pub struct Y; fn f() { crate::x::helper() }");
        let child = ("x/a.rs", "pub struct A; fn f(y: crate::y::Y) {}");
        assert_eq!(in_circles(&[("x/mod.rs", "mod a; pub use a::A; pub fn helper() {}"), child, other]), [""; 0]);
        let used = "mod a; pub use a::A; pub fn helper() { A; }";
        assert_eq!(in_circles(&[("x/mod.rs", used), child, other]), ["x/a.rs", "x/mod.rs", "y.rs"]);
    }

    #[test]
    fn a_child_that_names_its_parents_item_closes_no_circle() {
        let parent = "mod a; pub struct X(a::A);";
        for child in ["use super::X; pub struct A;", "pub struct A; fn f(x: crate::x::X) {}"] {
            assert_eq!(in_circles(&[("x/mod.rs", parent), ("x/a.rs", child)]), [""; 0]);
            assert_eq!(in_circles(&[("x.rs", parent), ("x/a.rs", child)]), [""; 0]);
        }
        // `xa` is no child of `x`.
        let sibling = ("xa.rs", "pub struct B(crate::x::X);");
        assert_eq!(in_circles(&[("x.rs", "pub struct X(crate::xa::B);"), sibling]), ["x.rs", "xa.rs"]);
    }

    #[test]
    fn what_is_no_edge_makes_no_circle() {
        for b in [
            "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            "pub struct B; #[cfg(test)] use crate::a::A;",
            "pub struct B; // crate::a::A",
            "pub struct B; /// [`crate::a::A`]\nfn f() -> &'static str { \"crate::a::A\" }",
            "pub use crate::a::A; pub struct B;",
            "pub(crate) use crate::a::A; pub struct B;",
            "use crate::a; pub struct B;",
            "pub struct B { a: u8 } fn f(b: B) { b.f(); b.a; }",
            "pub struct B; fn f() { ::a::A; other::a::A; }",
        ] {
            assert_eq!(in_circles(&[("lib.rs", "mod a; mod b;"), A, ("b.rs", b)]), [""; 0], "{b}");
        }
        assert_eq!(in_circles(&[("lib.rs", "mod bin;"), A]), [""; 0]);
    }

    #[test]
    fn a_program_is_a_crate_of_its_own() {
        let sources = [
            Source::new("rpc-core/src/lib.rs", "pub struct A; fn f(b: crate::bin::p::B) {}"),
            Source::new("rpc-core/src/bin/p.rs", "pub struct B; fn f(a: crate::A) {}"),
        ];
        assert_eq!(circles(&sources), [""; 0]);
    }
}
