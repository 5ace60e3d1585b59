//! Apache's mod_dav: the WebDAV server that most offices' providers run, with basic and digest login, and TLS.

use std::path::Path;
use std::sync::LazyLock;

use super::{Urls, WebDav, basic_login, digest_login, subfolder, write_settings};
use crate::process::{Recipe, free_ports};
use crate::{guard, http, tls};

/// What mod_dav needs, in the order in which it must be loaded.
const MODULES: [&str; 14] = [
    "mpm_event",
    "alias",
    "authn_core",
    "authn_file",
    "authz_core",
    "authz_user",
    "auth_basic",
    "auth_digest",
    "dav",
    "dav_fs",
    "dav_lock",
    "mime",
    "ssl",
    "socache_shmcb",
];

/// The Apache that all tests share.
pub fn apache() -> &'static WebDav {
    static APACHE: LazyLock<WebDav> = LazyLock::new(own_apache);
    &APACHE
}

/// One for a test that kills it.
pub fn own_apache() -> WebDav {
    let folder = guard::server_folder("apache");
    let [http, https] = free_ports();
    let data = subfolder(&folder, "data");
    subfolder(&folder, "run");
    write_settings(&folder, "users.basic", &basic_login());
    write_settings(&folder, "users.digest", &digest_login());
    let settings = write_settings(&folder, "httpd.conf", &settings(&folder, &data, http, https));
    let server = Recipe::new("Apache", &folder, "apache2")
        .arg("-d")
        .arg(&folder)
        .arg("-f")
        .arg(settings)
        .arg("-DFOREGROUND")
        .start(|| http::answers(http));
    let urls = Urls {
        http: Some(format!("http://127.0.0.1:{http}/dav/")),
        https: Some(format!("https://localhost:{https}/dav/")),
        http_digest: Some(format!("http://127.0.0.1:{http}/digest/")),
        https_digest: Some(format!("https://localhost:{https}/digest/")),
    };
    WebDav { name: "Apache mod_dav", server, folder: data, urls }
}

fn settings(folder: &Path, data: &Path, http: u16, https: u16) -> String {
    let modules: String = MODULES
        .iter()
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .collect();
    let (folder, data, tls) = (folder.display(), data.display(), tls::authority());
    let (certificate, key) = (tls.certificate.display(), tls.key.display());
    format!(
        r#"{modules}
ServerName localhost
ServerRoot {folder}
PidFile {folder}/run/pid
Mutex file:{folder}/run
DefaultRuntimeDir {folder}/run
ErrorLog {folder}/log
LogLevel warn
Listen 127.0.0.1:{http}
Listen 127.0.0.1:{https} https
DocumentRoot {data}
TypesConfig /dev/null
DavLockDB {folder}/run/locks
FileETag MTime Size
LimitXMLRequestBody 1048576
Timeout 120
<Directory "{data}">
  Dav On
  Options None
  AllowOverride None
</Directory>
Alias /dav "{data}"
Alias /digest "{data}"
<Location /dav>
  AuthType Basic
  AuthName offsite
  AuthBasicProvider file
  AuthUserFile {folder}/users.basic
  Require valid-user
</Location>
<Location /digest>
  AuthType Digest
  AuthName offsite
  AuthDigestDomain /digest/
  AuthDigestProvider file
  AuthUserFile {folder}/users.digest
  Require valid-user
</Location>
<VirtualHost 127.0.0.1:{https}>
  SSLEngine on
  SSLCertificateFile {certificate}
  SSLCertificateKeyFile {key}
</VirtualHost>
"#
    )
}
