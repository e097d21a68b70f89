//! The committed table: its form, the figures it allows, and the reasons of raised rows.
//!
//! `tests/tidy` reads the table by this file, too, because nothing else runs these tests.

use std::fmt;

/// Above the table's figure times this a row is red.
const ALLOWED: f64 = 1.03;

/// Figures, and the toolchain that made them.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) toolchain: String,
    pub(crate) rows: Vec<Row>,
}

/// One end of a call.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) end: String,
    pub(crate) figures: Figures,
    /// The least that this end ever had in the table.
    pub(crate) least: Figures,
    /// Why `figures` are above `least`.
    pub(crate) reason: String,
}

/// The costs of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
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

impl Table {
    /// Reads the line `Toolchain: …` and the rows of the Markdown table.
    ///
    /// # Errors
    /// Where a row is not as [`Table::render`] writes it, or is above its least figures without a reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let toolchain =
            text.lines().find_map(|line| line.strip_prefix("Toolchain: ")).ok_or("no line 'Toolchain: …'")?;
        let rows: Vec<_> =
            text.lines().filter(|line| line.starts_with('|')).skip(2).map(Row::parse).collect::<Result<_, _>>()?;
        if rows.is_empty() {
            return Err("the table has no rows".to_owned());
        }
        Ok(Self { toolchain: toolchain.to_owned(), rows })
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!("Toolchain: {}\n\n", self.toolchain);
        text.push_str("| end | instructions | allocations | least instructions | least allocations | reason |\n");
        text.push_str("|---|---|---|---|---|---|\n");
        for Row { end, figures, least, reason } in &self.rows {
            let numbers = format!("{:.0} | {:.2}", figures.instructions, figures.allocations);
            let least = format!("{:.0} | {:.2}", least.instructions, least.allocations);
            text.push_str(&format!("| {end} | {numbers} | {least} | {reason} |\n"));
        }
        text
    }

    /// Compares a measurement with the row of the same name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn judge(&self, measured: &Row) -> Result<Verdict, String> {
        let Row { end, figures, .. } = measured;
        let row =
            self.rows.iter().find(|row| row.end == *end).ok_or_else(|| format!("the table has no row '{end}'"))?;
        let instructions = figures.instructions / row.figures.instructions;
        let allocations = figures.allocations / row.figures.allocations;
        let is_red = instructions > ALLOWED || allocations > ALLOWED;
        let verdict = match (is_red, instructions.min(allocations) < 2.0 - ALLOWED) {
            (true, _) => "RED",
            (false, true) => "cheaper: lower the row",
            (false, false) => "as it was",
        };
        let change = |ratio: f64| (ratio - 1.0) * 100.0;
        let line = format!(
            "| {end} | {:.0} ({:+.1} %) | {:.0} | {:.2} ({:+.1} %) | {:.2} | {verdict} |",
            figures.instructions,
            change(instructions),
            row.figures.instructions,
            figures.allocations,
            change(allocations),
            row.figures.allocations
        );
        Ok(Verdict { is_red, line })
    }
}

impl Row {
    /// A measurement.
    pub(crate) fn new(end: &str, figures: Figures) -> Self {
        Self { end: end.to_owned(), figures, least: figures, reason: String::new() }
    }

    /// The same end, measured again: chance only ever adds, so that the lesser figures count.
    pub(crate) fn least_of(self, other: &Self) -> Self {
        let figures = Figures {
            instructions: self.figures.instructions.min(other.figures.instructions),
            allocations: self.figures.allocations.min(other.figures.allocations),
        };
        Self { figures, least: figures, ..self }
    }

    fn parse(line: &str) -> Result<Self, String> {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [end, instructions, allocations, least_instructions, least_allocations, reason] = cells[..] else {
            return Err(format!("six cells, not {}: {line}", cells.len()));
        };
        let number = |cell: &str| cell.parse::<f64>().map_err(|error| format!("{line}: {error}"));
        let figures = Figures { instructions: number(instructions)?, allocations: number(allocations)? };
        let least = Figures { instructions: number(least_instructions)?, allocations: number(least_allocations)? };
        let is_raised = figures.instructions > least.instructions || figures.allocations > least.allocations;
        if is_raised && reason.is_empty() {
            return Err(format!("{end}: the row is above its least figures and gives no reason"));
        }
        Ok(Self { end: end.to_owned(), figures, least, reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Toolchain: rustc 1\n\n| end | i | a | i | a | reason |\n|---|---|---|---|---|---|\n";

    fn measured(instructions: f64, allocations: f64) -> Row {
        Row::new("client", Figures { instructions, allocations })
    }

    #[test]
    fn a_cost_above_the_limit_is_red() {
        let table = Table::parse(&format!("{HEAD}| client | 1000 | 6.00 | 1000 | 6.00 | |\n")).unwrap();
        let is_red = |instructions, allocations| table.judge(&measured(instructions, allocations)).unwrap().is_red;
        assert!(!is_red(1029.0, 6.0));
        assert!(!is_red(500.0, 2.0));
        assert!(is_red(1031.0, 6.0));
        assert!(is_red(500.0, 7.0));
    }

    #[test]
    fn the_lesser_figures_of_two_measurements_count() {
        assert_eq!(measured(1000.0, 7.0).least_of(&measured(1100.0, 6.0)), measured(1000.0, 6.0));
    }

    #[test]
    fn a_raised_row_needs_a_reason() {
        let parse = |row: &str| Table::parse(&format!("{HEAD}{row}\n"));
        assert!(parse("| client | 1000 | 6.00 | 1000 | 6.00 | |").is_ok());
        assert!(parse("| client | 1001 | 6.00 | 1000 | 6.00 | |").is_err());
        assert!(parse("| client | 1000 | 7.00 | 1000 | 6.00 | |").is_err());
        assert!(parse("| client | 1001 | 7.00 | 1000 | 6.00 | priorities |").is_ok());
        assert!(parse("| client | 1000 | 6.00 |").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let table = Table { toolchain: "rustc 1, x86_64".to_owned(), rows: vec![measured(1000.0, 6.0)] };
        assert_eq!(Table::parse(&table.render()).unwrap(), table);
    }
}
