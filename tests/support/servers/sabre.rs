//! sabre/dav on PHP's own server: the library under Nextcloud and ownCloud, with basic and digest login.

use std::sync::LazyLock;

use super::{PASSWORD, USER, Urls, WebDav, digest_login, subfolder, write_settings};
use crate::process::{Recipe, free_ports};
use crate::{guard, http};

/// The sabre/dav that all tests share.
pub fn sabre() -> &'static WebDav {
    static SABRE: LazyLock<WebDav> = LazyLock::new(start);
    &SABRE
}

fn start() -> WebDav {
    let folder = guard::server_folder("sabre");
    let [http] = free_ports();
    let data = subfolder(&folder, "data");
    write_settings(&folder, "users.digest", &digest_login());
    let script = write_settings(&folder, "sabre.php", include_str!("sabre.php"));
    let server = Recipe::new("sabre/dav", &folder, "php")
        // Bodies come as they are, of any size; PHP's own server holds one in memory.
        .args(["-d", "post_max_size=0", "-d", "enable_post_data_reading=0", "-d", "memory_limit=1G"])
        .args(["-S", &format!("127.0.0.1:{http}")])
        .arg(script)
        .env("PHP_CLI_SERVER_WORKERS", "4")
        .env("DAV_DATA", &data)
        .env("DAV_LOCKS", folder.join("locks"))
        .env("DAV_DIGESTS", folder.join("users.digest"))
        .env("DAV_USER", USER)
        .env("DAV_PASSWORD", PASSWORD)
        .start(|| http::answers(http));
    let urls = Urls {
        http: Some(format!("http://127.0.0.1:{http}/dav/")),
        http_digest: Some(format!("http://127.0.0.1:{http}/digest/")),
        ..Urls::default()
    };
    WebDav { name: "sabre/dav", server, folder: data, urls }
}
