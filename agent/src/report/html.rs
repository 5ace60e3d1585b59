//! A report as HTML for mail programs: tables, style inline, nothing from elsewhere. Colours are a second carrier: whatever
//! they say is said in words too, and every pair of them has enough contrast on light and dark ground.

use std::fmt::Write as _;

use super::text::footer;
use super::{Kind, Report, Table};
use crate::said::plain;

const CELL: &str = "padding:4px 10px;border-bottom:1px solid #8c959f;text-align:left;vertical-align:top";

/// A command or value that is not broken over two lines, in characters.
const SHORT: usize = 36;
/// A cell that is shorter is not broken either: a date with its time is.
const UNBROKEN: usize = 17;

/// `text` as content or attribute of HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in plain(text).chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// As [`escape`]; what stands between grave accents is shown as a command.
pub(super) fn escape_commands(text: &str) -> String {
    let pieces = text.split('`').enumerate().map(|(at, piece)| match at % 2 {
        0 => escape(piece),
        _ if piece.chars().count() <= SHORT => format!("<code style=\"white-space:nowrap\">{}</code>", escape(piece)),
        _ => format!("<code style=\"overflow-wrap:anywhere\">{}</code>", escape(piece)),
    });
    pieces.collect()
}

pub(super) fn mail(report: &Report) -> String {
    let (word, ground) = banner(report.kind);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">\
         <title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:16px;font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;\
         font-size:15px;line-height:1.45;overflow-wrap:anywhere\">\n<div style=\"max-width:720px;margin:0 auto\">\n\
         <table role=\"presentation\" width=\"100%\" style=\"border-collapse:collapse\"><tr>\
         <td style=\"background:{ground};color:#ffffff;padding:14px 16px;border-radius:6px\">\
         <div style=\"font-size:12px;letter-spacing:.06em;text-transform:uppercase\">{word} &middot; {site}</div>\
         <div style=\"font-size:18px;font-weight:600\">{verdict}</div></td></tr></table>\n",
        subject = escape(&report.subject),
        site = escape(&report.site),
        verdict = escape_commands(&report.verdict),
    );
    if !report.todo.is_empty() {
        html.push_str("<h2 style=\"font-size:16px;margin:20px 0 6px\">What needs doing</h2>\n<ol style=\"margin:0;padding-left:24px\">");
        for what in &report.todo {
            let _ = write!(html, "<li style=\"margin:4px 0\">{}</li>", escape_commands(what));
        }
        html.push_str("</ol>\n");
    }
    for table in &report.tables {
        html.push_str(&table_html(table));
    }
    let _ = write!(
        html,
        "<p style=\"font-size:12px;margin:24px 0 0;padding-top:8px;border-top:1px solid #8c959f;overflow-wrap:anywhere\">{}</p>\n\
         </div></body></html>\n",
        escape(&footer(report))
    );
    html
}

/// The word at the top and the colour behind it; white text on each has a contrast of 4.5 and more.
fn banner(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Success => ("All is well", "#1a7f37"),
        Kind::Digest => ("Summary", "#0550ae"),
        Kind::Warning => ("Warning", "#8a5a00"),
        Kind::Unsynchronized => ("Not of one instant", "#8a5a00"),
        Kind::Reminder => ("Reminder", "#8a5a00"),
        Kind::Failure => ("Failed", "#b42318"),
        Kind::Overdue => ("Overdue", "#b42318"),
        Kind::DrillFailed => ("Drill failed", "#8e0f0f"),
    }
}

fn table_html(table: &Table) -> String {
    let mut html = format!(
        "<h2 style=\"font-size:16px;margin:20px 0 6px\">{}</h2>\n\
         <table style=\"border-collapse:collapse;width:100%;font-size:14px\">",
        escape(&table.title)
    );
    if !table.head.is_empty() {
        html.push_str("<tr>");
        for cell in &table.head {
            let _ = write!(
                html,
                "<th scope=\"col\" style=\"{CELL};font-weight:600;white-space:nowrap\">{}</th>",
                escape(cell)
            );
        }
        html.push_str("</tr>\n");
    }
    for row in &table.rows {
        html.push_str("<tr>");
        for (column, cell) in row.cells.iter().enumerate() {
            let weight = if row.bad && column == 0 { ";font-weight:700" } else { "" };
            // So that facts stand in one line below each other, whatever table they are in.
            let width = if table.head.is_empty() && column == 0 { ";width:38%" } else { "" };
            // The last column gives way to digests and long names, the others keep their words.
            let wrap = match cell.chars().count() {
                0..UNBROKEN => ";white-space:nowrap",
                _ if column + 1 == row.cells.len() => ";overflow-wrap:anywhere",
                _ => ";overflow-wrap:break-word",
            };
            let _ = write!(html, "<td style=\"{CELL}{weight}{width}{wrap}\">{}</td>", escape_commands(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n");
    html
}
