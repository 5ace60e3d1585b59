//! nginx with its dav module and dav-ext: it ignores every condition (`If-Match`, `If-None-Match`) and tells no ETag.

use std::path::Path;
use std::sync::LazyLock;

use super::{Urls, WebDav, basic_login, subfolder, write_settings};
use crate::process::{Recipe, free_ports};
use crate::{guard, http, tls};

/// The nginx that all tests share.
pub fn nginx() -> &'static WebDav {
    static NGINX: LazyLock<WebDav> = LazyLock::new(start);
    &NGINX
}

fn start() -> WebDav {
    let folder = guard::server_folder("nginx");
    let [http, https] = free_ports();
    let data = subfolder(&folder, "data");
    subfolder(&folder, "tmp");
    write_settings(&folder, "users", &basic_login());
    let settings = write_settings(&folder, "nginx.conf", &settings(&folder, &data, http, https));
    let server = Recipe::new("nginx", &folder, "nginx")
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(settings)
        .start(|| http::answers(http));
    let urls = Urls {
        http: Some(format!("http://127.0.0.1:{http}/")),
        https: Some(format!("https://localhost:{https}/")),
        ..Urls::default()
    };
    WebDav { name: "nginx", server, folder: data, urls }
}

fn settings(folder: &Path, data: &Path, http: u16, https: u16) -> String {
    let (folder, data, tls) = (folder.display(), data.display(), tls::authority());
    let (certificate, key) = (tls.certificate.display(), tls.key.display());
    format!(
        "load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off;
worker_processes 1;
pid {folder}/tmp/pid;
error_log {folder}/log warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  default_type application/octet-stream;
  dav_ext_lock_zone zone=locks:1m;
  client_max_body_size 0;
  client_body_temp_path {folder}/tmp/body;
  proxy_temp_path {folder}/tmp/proxy;
  fastcgi_temp_path {folder}/tmp/fastcgi;
  uwsgi_temp_path {folder}/tmp/uwsgi;
  scgi_temp_path {folder}/tmp/scgi;
  server {{
    listen 127.0.0.1:{http};
    listen 127.0.0.1:{https} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {data};
    location / {{
      auth_basic offsite;
      auth_basic_user_file {folder}/users;
      dav_methods PUT DELETE MKCOL COPY MOVE;
      dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK;
      dav_ext_lock zone=locks;
      create_full_put_path off;
      min_delete_depth 0;
    }}
  }}
}}
"
    )
}
