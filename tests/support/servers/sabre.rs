//! sabre/dav on PHP's own server: the library under Nextcloud and ownCloud, with basic and digest login.

use std::path::Path;
use std::sync::LazyLock;

use super::{PASSWORD, USER, Urls, WebDav, digest_login, subfolder, write_settings};
use crate::process::{Recipe, Server, free_ports};
use crate::{guard, http};

/// The sabre/dav that all tests share.
pub fn sabre() -> &'static WebDav {
    static SABRE: LazyLock<WebDav> = LazyLock::new(|| {
        let folder = guard::server_folder("sabre");
        let data = subfolder(&folder, "data");
        let (server, port) = start("sabre/dav", &folder, &data);
        let urls = Urls {
            http: Some(format!("http://127.0.0.1:{port}/dav/")),
            http_digest: Some(format!("http://127.0.0.1:{port}/digest/")),
            ..Urls::default()
        };
        WebDav { name: "sabre/dav", server, folder: data, urls }
    });
    &SABRE
}

/// What stands in for a Nextcloud: sabre/dav with its addresses and its uploads in parts, as its manual has them.
pub fn nextcloud_stand_in() -> &'static WebDav {
    static NEXTCLOUD: LazyLock<WebDav> = LazyLock::new(own_nextcloud_stand_in);
    &NEXTCLOUD
}

/// One for a test that kills it.
pub fn own_nextcloud_stand_in() -> WebDav {
    let folder = guard::server_folder("nextcloud");
    let data = subfolder(&folder, "data");
    let [files, uploads] = ["files", "uploads"].map(|name| subfolder(&subfolder(&data, name), USER));
    drop(uploads);
    let (server, port) = start("Nextcloud's stand-in", &folder, &data);
    let urls = Urls { http: Some(format!("http://127.0.0.1:{port}/remote.php/dav/files/{USER}/")), ..Urls::default() };
    WebDav { name: "Nextcloud's stand-in", server, folder: files, urls }
}

/// Starts the server; and its port.
fn start(name: &'static str, folder: &Path, data: &Path) -> (Server, u16) {
    let [http] = free_ports();
    write_settings(folder, "users.digest", &digest_login());
    let script = write_settings(folder, "sabre.php", include_str!("sabre.php"));
    let server = Recipe::new(name, folder, "php")
        // Bodies come as they are, of any size; PHP's own server holds one in memory.
        .args(["-d", "post_max_size=0", "-d", "enable_post_data_reading=0", "-d", "memory_limit=1G"])
        .args(["-S", &format!("127.0.0.1:{http}")])
        .arg(script)
        .env("PHP_CLI_SERVER_WORKERS", "4")
        .env("DAV_DATA", data)
        .env("DAV_LOCKS", folder.join("locks"))
        .env("DAV_DIGESTS", folder.join("users.digest"))
        .env("DAV_USER", USER)
        .env("DAV_PASSWORD", PASSWORD)
        .start(|| http::answers(http));
    (server, http)
}
