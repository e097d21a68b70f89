//! The committed table: its form, what it allows, and when a row may be raised.

use std::fmt;

use crate::callgrind::Counts;

/// Above the table's figure times this a row is red.
const ALLOWED: f64 = 1.03;

/// What was measured, with which toolchain.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) toolchain: String,
    pub(crate) rows: Vec<Row>,
}

/// One end of a call.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) end: String,
    pub(crate) counts: Counts,
    /// Why it costs what it costs.
    pub(crate) reason: String,
}

/// A measured row beside the table's.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) is_red: bool,
    line: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Row {
    pub(crate) fn new(end: &str, counts: Counts) -> Self {
        Self { end: end.to_owned(), counts, reason: String::new() }
    }
}

impl Table {
    /// Reads the line `Toolchain: …` and the rows of the Markdown table.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let toolchain = text.lines().find_map(|line| line.strip_prefix("Toolchain: ")).ok_or("no line 'Toolchain: …'")?;
        let mut rows = Vec::new();
        for line in text.lines().filter(|line| line.starts_with('|')).skip(2) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [end, instructions, allocations, reason] = cells[..] else { return Err(format!("four cells: {line}")) };
            let number = |cell: &str| cell.parse::<f64>().map_err(|error| format!("{line}: {error}"));
            let counts = Counts { instructions: number(instructions)?, allocations: number(allocations)? };
            rows.push(Row { end: end.to_owned(), counts, reason: reason.to_owned() });
        }
        Ok(Self { toolchain: toolchain.to_owned(), rows })
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!("Toolchain: {}\n\n", self.toolchain);
        text.push_str("| end | instructions | allocations | reason |\n|---|---|---|---|\n");
        for Row { end, counts, reason } in &self.rows {
            text.push_str(&format!("| {end} | {:.0} | {:.2} | {reason} |\n", counts.instructions, counts.allocations));
        }
        text
    }

    /// Compares what was measured with the row of the same name.
    pub(crate) fn judge(&self, measured: &Row) -> Result<Verdict, String> {
        let Row { end, counts, .. } = measured;
        let row = self.rows.iter().find(|row| row.end == *end).ok_or_else(|| format!("the table has no row '{end}'"))?;
        let change = |now: f64, then: f64| (now / then - 1.0) * 100.0;
        let instructions = change(counts.instructions, row.counts.instructions);
        let allocations = change(counts.allocations, row.counts.allocations);
        let limit = (ALLOWED - 1.0) * 100.0;
        let is_red = instructions > limit || allocations > limit;
        let verdict = match (is_red, instructions.min(allocations) < -limit) {
            (true, _) => "RED",
            (false, true) => "cheaper: lower the row",
            (false, false) => "as it was",
        };
        let line = format!(
            "| {end} | {:.0} ({instructions:+.1} %) | {:.0} | {:.2} ({allocations:+.1} %) | {:.2} | {verdict} |",
            counts.instructions, row.counts.instructions, counts.allocations, row.counts.allocations
        );
        Ok(Verdict { is_red, line })
    }
}
