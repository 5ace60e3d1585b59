//! Answers to PROPFIND (RFC 4918, section 14).

use jiff::Timestamp;
use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::ResolveResult;

/// The properties we ask for.
pub(super) const ASKED: &str = concat!(
    r#"<?xml version="1.0" encoding="utf-8"?>"#,
    r#"<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"#
);

/// One resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path on the server, decoded.
    pub(super) path: String,
    /// Whether it is a folder.
    pub(super) is_folder: bool,
    /// Its size, if it has one.
    pub(super) bytes: Option<u64>,
    /// When it was written, by the server's clock.
    pub(super) modified: Option<Timestamp>,
}

/// Reads a whole answer. Unknown elements are passed over; properties count only under a status of 200.
pub(super) fn parse(xml: &[u8]) -> Result<Vec<Entry>, quick_xml::Error> {
    let xml = String::from_utf8_lossy(xml);
    let mut reader = NsReader::from_str(&xml);
    let (mut entries, mut entry, mut found) = (Vec::new(), Entry::default(), Entry::default());
    let (mut text, mut granted) = (String::new(), true);
    loop {
        let (namespace, event) = reader.read_resolved_event()?;
        let is_dav = matches!(namespace, ResolveResult::Bound(name) if name.as_ref() == "DAV:");
        match event {
            Event::Start(start) | Event::Empty(start) if is_dav => {
                text.clear();
                match start.local_name().as_ref() {
                    "response" => entry = Entry::default(),
                    "propstat" => (found, granted) = (Entry::default(), true),
                    "collection" => found.is_folder = true,
                    _ => {}
                }
            }
            Event::Text(piece) => text.push_str(&piece),
            Event::CData(piece) => text.push_str(&piece),
            Event::GeneralRef(name) => text.push_str(reference(&name)),
            Event::End(end) if is_dav => match end.local_name().as_ref() {
                "href" => entry.path = path_of(text.trim()),
                "getcontentlength" => found.bytes = text.trim().parse().ok(),
                "getlastmodified" => found.modified = http_date(text.trim()),
                "status" => granted = text.split_whitespace().nth(1) == Some("200"),
                "propstat" if granted => {
                    entry.is_folder |= found.is_folder;
                    entry.bytes = entry.bytes.or(found.bytes);
                    entry.modified = entry.modified.or(found.modified);
                }
                "response" => entries.push(std::mem::take(&mut entry)),
                _ => {}
            },
            Event::Eof => return Ok(entries),
            _ => {}
        }
    }
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7).
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

/// The decoded path of an address that may be absolute.
fn path_of(href: &str) -> String {
    let path = match href.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => href,
    };
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// The five entities of XML. Others, which a document could define to blow itself up, become nothing.
fn reference(name: &str) -> &'static str {
    match name {
        "amp" => "&",
        "lt" => "<",
        "gt" => ">",
        "quot" => "\"",
        "apos" => "'",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whatever_its_prefixes() {
        let xml = br#"<?xml version="1.0"?>
            <D:multistatus xmlns:D="DAV:" xmlns:x="urn:other">
              <D:response><D:href>http://other.host/dav/a%20b/</D:href>
                <D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>
                  <D:status>HTTP/1.1 200 OK</D:status></D:propstat>
                <D:propstat><D:prop><D:getcontentlength>7</D:getcontentlength></D:prop>
                  <D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
              <response xmlns="DAV:"><href>/dav/c%7E1&amp;</href>
                <propstat><prop><resourcetype/><x:collection/><getcontentlength> 42 </getcontentlength>
                  <getlastmodified>Sun, 22 Nov 2026 14:15:27 GMT</getlastmodified></prop>
                  <status>HTTP/1.1 200 OK</status></propstat></response>
            </D:multistatus>"#;
        let folder = Entry { path: "/dav/a b/".to_owned(), is_folder: true, bytes: None, modified: None };
        let modified = Some("2026-11-22T14:15:27Z".parse().unwrap());
        let file = Entry { path: "/dav/c~1&".to_owned(), is_folder: false, bytes: Some(42), modified };
        assert_eq!(parse(xml).unwrap(), [folder, file]);
    }

    #[test]
    fn nonsense_is_refused_or_empty() {
        for bad in [&b"<a><b></a>"[..], b"<multistatus xmlns='DAV:'><response></multistatus>"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for empty in [&b""[..], b"hello", b"<html><body/></html>"] {
            assert_eq!(parse(empty).unwrap(), [], "{empty:?}");
        }
    }

    #[test]
    fn entities_do_not_grow() {
        let bomb = br#"<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
            <multistatus xmlns="DAV:"><response><href>/&b;&b;</href></response></multistatus>"#;
        assert_eq!(parse(bomb).unwrap(), [Entry { path: "/".to_owned(), ..Entry::default() }]);
    }
}
