//! QR codes as pictures inside a page.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};

/// The empty margin that readers need, in modules.
const QUIET: usize = 4;

/// A text as a QR code: an SVG picture, black on white. Nothing if the text is too long for one that can be read from paper.
pub(super) fn picture(text: &str, title: &str) -> Option<String> {
    /// A code of more has points that a printer and a phone no longer tell apart.
    const BYTES_MAX: usize = 1000;
    if text.len() > BYTES_MAX {
        return None;
    }
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let side = code.width() + 2 * QUIET;
    let mut path = String::new();
    for (row, modules) in code.to_colors().chunks(code.width()).enumerate() {
        for (column, _) in modules.iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
            // Writing to a String cannot fail.
            let _ = write!(path, "M{} {}h1v1h-1z", column + QUIET, row + QUIET);
        }
    }
    Some(format!(
        "<svg class=\"qr\" role=\"img\" aria-label=\"QR code: {title}\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\" fill=\"#000\"/></svg>"
    ))
}
