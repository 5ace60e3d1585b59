//! The recovery sheet as one page to be printed, black on white; a browser makes a PDF of it. It loads nothing from anywhere.

use std::fmt::Write as _;

use age::secrecy::ExposeSecret as _;

use super::{Sheet, qr};
use crate::report::escape;

const STYLE: &str = "
@page { size: A4; margin: 11mm }
* { box-sizing: border-box }
body { font: 9pt/1.32 sans-serif; color: #000; background: #fff; max-width: 188mm; margin: 0 auto }
h1 { font-size: 17pt; margin: 0 } h2 { font-size: 10.5pt; margin: 2.6mm 0 1mm; border-bottom: 0.4mm solid #000 }
p { margin: 0 0 1.2mm } ol { margin: 0; padding-left: 5mm }
code, pre { font: 7.6pt/1.3 monospace; overflow-wrap: anywhere; white-space: pre-wrap; margin: 0 0 1mm }
.row { display: flex; gap: 5mm } .row > div { flex: 1; min-width: 0 } .row > div + div { flex: none; width: 119mm }
.qr { width: 34mm; height: 34mm; flex: none } .codes { display: flex; gap: 4mm; text-align: center; font-size: 7.5pt }
.codes figure { margin: 0 } .secret { border: 0.7mm solid #000; padding: 1.5mm 2.5mm; margin: 1mm 0 }
.line { display: inline-block; border-bottom: 0.3mm solid #000; min-width: 54mm } table { border-spacing: 0; width: 100% }
td { vertical-align: top; padding: 0 2mm 1mm 0 } td:first-child, td:last-child, td:first-child code { white-space: nowrap }
td:first-child code { font-size: 7pt }
";

const SCRIPT: &str = "sudo apt install age zstd
sh restore.sh key.txt CHAIN GENERATION OUT";
const PIPE: &str = "mkdir OUT
cut -c 67- CHAIN/GENERATION.packs | while read -r p; do
  age -d -i key.txt \"CHAIN/$p\"
done | zstd -d | tar -x -p -f - -C OUT";
const WINDOWS: &str = "winget install FiloSottile.age Meta.Zstandard
mkdir OUT
for /f \"tokens=2\" %p in (CHAIN\\GENERATION.packs) do @age -d -i key.txt \"CHAIN/%p\" >> all.zst
zstd -d all.zst -o all.tar
tar -x -f all.tar -C OUT";

impl Sheet<'_> {
    /// The sheet as a page of HTML.
    pub(in crate::commands) fn html(&self) -> String {
        let site = escape(self.site.as_str());
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Recovery sheet of {site}</title>\
             <style>{STYLE}</style></head><body>\n<h1>Recovery sheet of {site}</h1>\n<p>Printed {:.0} by offsite {}. Keep it \
             outside the building, and a second one somewhere else.</p>\n",
            self.printed,
            env!("CARGO_PKG_VERSION")
        );
        page.push_str(&self.places());
        page.push_str(&self.keys());
        page.push_str(&self.codes());
        page.push_str(&by_hand());
        page.push_str(&self.by_program());
        page.push_str("</body></html>\n");
        page
    }

    fn places(&self) -> String {
        let mut text = "<h2>1. Where the data lies</h2>\n<table>".to_owned();
        for store in self.stores {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "<tr><td>{} ({})</td><td><code>{}</code> and below it the folder <code>{}/</code></td>\
                 <td>login kept at: <span class=\"line\" style=\"min-width:30mm\">&nbsp;</span></td></tr>",
                escape(store.name.as_str()),
                store.kind(),
                escape(&store.to_string()),
                escape(self.site.as_str())
            );
        }
        text + "</table>\n"
    }

    fn keys(&self) -> String {
        let mut text = "<h2>2. What opens it: any one of these secret keys</h2>\n<table>".to_owned();
        for recipient in &self.recipients {
            let _ = write!(
                text,
                "<tr><td><code>{}</code></td><td>secret key kept at: <span class=\"line\">&nbsp;</span></td></tr>",
                escape(recipient)
            );
        }
        text.push_str("</table>\n");
        match self.secret {
            Some(_) => {
                let lines: String = self.secret_lines().iter().map(|line| escape(line)).collect::<Vec<_>>().join("\n");
                let _ = writeln!(
                    text,
                    "<div class=\"secret\"><b>SECRET KEY. Whoever reads this line can read every backup.</b> Put it into a text \
                     file, key.txt.<pre>{lines}</pre></div>"
                );
            }
            None => text.push_str(
                "<p>The secret key is not on this sheet. If the folder of the site has a folder <code>keys</code>, there is one \
                 in it under a passphrase: <code>age -d -o key.txt keys/NAME.age</code> asks for it. Passphrase kept at: \
                 <span class=\"line\">&nbsp;</span></p>\n",
            ),
        }
        match &self.public_key {
            Some((key, fingerprint)) => {
                let _ = writeln!(
                    text,
                    "<p>Signed by the site's key <code>{}</code> (fingerprint <code>{}</code>): this shows that a copy is the \
                     office's own.</p>",
                    escape(key),
                    escape(fingerprint)
                );
            }
            None => text.push_str("<p>No signing key has been made yet.</p>\n"),
        }
        text
    }

    fn codes(&self) -> String {
        let mut pictures = Vec::new();
        if self.secret.is_some() {
            pictures.push((self.secret_lines().join("\n"), "SECRET KEY: key.txt".to_owned()));
        }
        // One for each store, so that none of them gets too fine to be read.
        for store in self.stores {
            pictures.push((self.configuration(&[store]), format!("site and store {}: offsite.toml", store.name)));
        }
        let figure = |(text, title): &(String, String)| {
            let title = escape(title);
            qr::picture(text, &title).map(|code| format!("<figure>{code}<br>{title}</figure>"))
        };
        format!("<div class=\"codes\">{}</div>\n", pictures.iter().filter_map(figure).collect::<String>())
    }

    fn by_program(&self) -> String {
        format!(
            "<h2>4. With the program (Linux)</h2>\n<div class=\"row\"><div><p>A copy of the program is kept at: <span \
             class=\"line\" style=\"min-width:40mm\">&nbsp;</span></p><p>Write the text beside this, or what the codes of the \
             stores say, to offsite.toml. Where it says env:NAME, set that variable to the secret. Then:</p>\
             <pre>offsite --config offsite.toml list\noffsite --config offsite.toml restore latest --to OUT --identity key.txt\
             </pre></div><div><pre>{}</pre></div></div>\n",
            escape(&self.configuration(&self.stores.iter().collect::<Vec<_>>()))
        )
    }
}

fn by_hand() -> String {
    format!(
        "<h2>3. By hand, with nothing of ours</h2>\n<ol><li>Fetch the folder of the site from one of the places above, with a \
         browser or whatever the storage offers. Read RESTORE.txt in it: it says every step, and how to check what you \
         have.</li><li>Put the folder of a copy, CHAIN (<code>rolling/&hellip;</code> or <code>archive/&hellip;</code>), and \
         restore.sh from the folder of the site beside key.txt, open a terminal there, and write, with the latest time among \
         the names in CHAIN, such as 20261122T233004Z-7f3a, as GENERATION, and OUT as the name of a new folder:</li></ol>\n\
         <b>Linux</b>, and Windows with WSL<pre>{}</pre>\n<b>macOS</b>: the same, after <code>brew install age zstd</code>\n\
         <p><b>Without the script</b> an archived copy comes back, or the first copy of a chain, which is the OLDEST of those in \
         the folder (unless its .json says carried_bytes):</p><pre>{}</pre>\n<b>Windows</b> (cmd, not PowerShell), the \
         same<pre>{}</pre>\n",
        escape(SCRIPT),
        escape(PIPE),
        escape(WINDOWS)
    )
}

impl Sheet<'_> {
    /// What an identity file has to hold.
    fn secret_lines(&self) -> Vec<String> {
        let lines = self.secret.into_iter().flat_map(|secret| secret.expose_secret().lines());
        lines.filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }
}
