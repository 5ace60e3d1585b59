//! The auditor's document as one HTML page: readable in a browser, and on paper in black and white. Nothing from elsewhere.

use std::fmt::Write as _;

use super::{Audit, Section};
use crate::report::html::{escape, escape_commands};

const STYLE: &str = "
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #111; font: 14px/1.45 system-ui, 'Segoe UI', Roboto, Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 28px 0 4px; break-after: avoid; }
p { margin: 4px 0 8px; break-after: avoid; }
ul { margin: 12px 0; padding: 12px 16px 12px 32px; border: 2px solid #111; border-radius: 6px; font-size: 15px; }
table { border-collapse: collapse; width: 100%; font-size: 12.5px; }
thead { display: table-header-group; }
tr { break-inside: avoid; }
th, td { border: 1px solid #777; padding: 3px 7px; text-align: left; vertical-align: top; overflow-wrap: break-word; }
th { background: #eee; white-space: nowrap; }
td.short { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
tr.bad td { font-weight: 700; }
tr.bad td:first-child { border-left: 3px solid #111; }
footer { margin-top: 24px; padding-top: 8px; border-top: 1px solid #777; font-size: 12px; }
@page { size: auto; margin: 15mm; }
@media print { body { font-size: 11px; } main { max-width: none; padding: 0; } table { font-size: 10px; } }
";

/// Cells up to so many characters are not broken over two lines.
const SHORT: usize = 21;

pub(super) fn page(audit: &Audit) -> String {
    let title = format!("Evidence of backup and recovery: {}, {} to {}", audit.site, audit.from, audit.to);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{STYLE}</style></head>\n<body><main>\n<h1>Evidence of backup and recovery</h1>\n\
         <p><strong>{site}</strong>, {from} to {to}. Made {at} by offsite {version}.</p>\n<ul>\n",
        title = escape(&title),
        site = escape(&audit.site),
        from = audit.from,
        to = audit.to,
        at = escape(&audit.made),
        version = env!("CARGO_PKG_VERSION"),
    );
    for sentence in &audit.summary {
        let _ = writeln!(html, "<li>{}</li>", escape_commands(sentence));
    }
    html.push_str("</ul>\n");
    for section in &audit.sections {
        html.push_str(&section_html(section));
    }
    html.push_str(
        "<footer>To keep it, print it to a PDF file. Words in capitals are what is not as it should be; they stand in bold \
         rows.</footer>\n</main></body></html>\n",
    );
    html
}

fn section_html(Section { note, table }: &Section) -> String {
    let mut html = format!("<h2>{}</h2>\n<p>{}</p>\n<table>\n", escape(&table.title), escape(note));
    if !table.head.is_empty() {
        html.push_str("<thead><tr>");
        for cell in &table.head {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(cell));
        }
        html.push_str("</tr></thead>\n");
    }
    html.push_str("<tbody>\n");
    if table.rows.is_empty() {
        let _ = writeln!(html, "<tr><td colspan=\"{}\">nothing in this period</td></tr>", table.head.len().max(1));
    }
    for row in &table.rows {
        html.push_str(if row.bad { "<tr class=\"bad\">" } else { "<tr>" });
        for cell in &row.cells {
            let short = if cell.chars().count() <= SHORT { " class=\"short\"" } else { "" };
            let _ = write!(html, "<td{short}>{}</td>", escape_commands(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table>\n");
    html
}
