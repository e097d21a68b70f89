//! Relative links of the Markdown files lead to files and headings that are there.

use std::{fs, path::Path};

/// The links of `text` that lead nowhere, from the file at `path` below `root`.
pub(crate) fn broken_links(root: &Path, path: &str, text: &str) -> Vec<String> {
    let folder = root.join(path).parent().map(Path::to_owned).unwrap_or_default();
    let mut complaints = Vec::new();
    for (line, target) in targets(text) {
        let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
        let read = if file.is_empty() { Ok(text.to_owned()) } else { fs::read_to_string(folder.join(file)) };
        let is_there = match (heading, &read) {
            (Some(heading), Ok(text)) if file.is_empty() || file.ends_with(".md") => {
                anchors(text).iter().any(|anchor| anchor == heading)
            }
            _ => file.is_empty() || folder.join(file).exists(),
        };
        if !is_there {
            complaints.push(format!("{path}:{line}: the link '{target}' leads nowhere"));
        }
    }
    complaints
}

/// Relative link targets, `[text](target)` and `[label]: target`. Other sites, rustdoc's paths and pages are not looked at.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    for (line, text) in outside_code(text) {
        let mut rest = text;
        while let Some((_, target)) = rest.split_once("](") {
            let end = target.find([')', ' ']).unwrap_or(target.len());
            targets.push((line, &target[..end]));
            rest = &target[end..];
        }
        if let Some((_, target)) = text.strip_prefix('[').and_then(|label| label.split_once("]: ")) {
            targets.push((line, target.split_whitespace().next().unwrap_or_default()));
        }
    }
    let is_relative = |target: &str| {
        !target.contains(':')
            && !target.split('#').next().is_some_and(|file| file.ends_with(".html"))
            && target.contains(['/', '.', '#'])
    };
    targets.retain(|(_, target)| is_relative(target.trim_matches(['<', '>'])));
    targets
}

/// The anchors GitHub gives the headings of a Markdown file.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in outside_code(text) {
        let Some((_, heading)) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')).map(|rest| ("", rest))
        else {
            continue;
        };
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect();
        let twins = anchors.iter().filter(|other| **other == anchor).count();
        anchors.push(if twins == 0 { anchor } else { format!("{anchor}-{twins}") });
    }
    anchors
}

fn outside_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(line, text)| {
        let is_fence = text.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((line + 1, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let broken = |text: &str| broken_links(root, "tidy/README.md", text).len();
        assert_eq!(broken("[a](links.rs) [b](../Cargo.toml) [c](https://x.y/z#w) [d](crate::a::B) [e](Name)"), 0);
        assert_eq!(broken("[a](link.rs) and [b](../cargo.toml)"), 2);
        assert_eq!(broken("text\n\n[a]: link.rs \"title\"\n[b]: links.rs"), 1);
        assert_eq!(broken("# One & two\n# One & two\n[a](#one--two) [b](#one--two-1)"), 0);
        assert_eq!(broken("# One\n[a](#two)"), 1);
        assert_eq!(broken("```\n[a](no.md)\n```\n[b](struct.Call.html)"), 0);
        assert_eq!(broken("[a](no/struct.md#x)"), 1);
    }
}
