//! WsgiDAV: basic and digest login on one address; a broken connection leaves it with half a file.

use std::sync::LazyLock;

use super::{PASSWORD, USER, Urls, WebDav, subfolder, write_settings};
use crate::process::{Recipe, free_ports};
use crate::{guard, http};

/// The WsgiDAV that all tests share.
pub fn wsgidav() -> &'static WebDav {
    static WSGIDAV: LazyLock<WebDav> = LazyLock::new(start);
    &WSGIDAV
}

fn start() -> WebDav {
    let folder = guard::server_folder("wsgidav");
    let [http] = free_ports();
    let data = subfolder(&folder, "data");
    let settings = serde_json::json!({
        "server": "cheroot",
        "host": "127.0.0.1",
        "port": http,
        "provider_mapping": { "/": data },
        "http_authenticator": { "accept_basic": true, "accept_digest": true, "default_to_digest": true },
        "simple_dc": { "user_mapping": { "*": { USER: { "password": PASSWORD } } } },
        "property_manager": true,
        "lock_storage": true,
        "dir_browser": { "enable": false },
        "verbose": 1,
    });
    let settings = write_settings(&folder, "wsgidav.json", &settings.to_string());
    let server = Recipe::new("WsgiDAV", &folder, "wsgidav")
        .privileged()
        .arg("--config")
        .arg(settings)
        .start(|| http::answers(http));
    let url = format!("http://127.0.0.1:{http}/");
    let urls = Urls { http: Some(url.clone()), http_digest: Some(url), ..Urls::default() };
    WebDav { name: "WsgiDAV", server, folder: data, urls }
}
