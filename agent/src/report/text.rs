//! A report as plain text: for mail programs without HTML, and for whoever reads over the telephone.

use std::fmt::Write as _;

use super::{Report, Table};
use crate::said::plain;

pub(super) fn text(report: &Report) -> String {
    let mut text = format!("{}\n", report.verdict);
    if !report.todo.is_empty() {
        text.push_str("\nWhat needs doing:\n");
        for (number, what) in report.todo.iter().enumerate() {
            let _ = writeln!(text, "{}. {what}", number + 1);
        }
    }
    for table in &report.tables {
        let _ = write!(text, "\n{}\n", table.title);
        text.push_str(&aligned(table));
    }
    text.push_str(&format!("\n--\n{}\n", footer(report)));
    plain(&text)
}

/// Who writes, and what the mail proves later.
pub(super) fn footer(report: &Report) -> String {
    let mut footer = format!("offsite {} for {}", env!("CARGO_PKG_VERSION"), report.site);
    if let Some(anchor) = &report.evidence {
        let _ = write!(
            footer,
            ". Keep this mail: it shows later that nothing was removed from the evidence log up to entry {} ({}).",
            anchor.number, anchor.sha256
        );
    }
    footer
}

fn aligned(table: &Table) -> String {
    let head = (!table.head.is_empty()).then_some(&table.head);
    let lines: Vec<&Vec<String>> = head.into_iter().chain(table.rows.iter().map(|row| &row.cells)).collect();
    let columns = lines.iter().map(|cells| cells.len()).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for cells in lines {
        let mut line = String::from(" ");
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(line, " {cell:width$} ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
