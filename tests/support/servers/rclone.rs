//! rclone's servers: S3 and WebDAV that look right and are wrong in many ways, as a probe has to find out.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::{Keys, PASSWORD, USER, Urls, WebDav, seaweedfs, subfolder, unique, write_settings};
use crate::process::{Recipe, Server, free_ports};
use crate::{guard, http};

/// `rclone serve s3`: no versions, no locks, no conditions, uploads in parts that a restart forgets; and what is
/// streamed to it over http in signed chunks it stores with the chunks' headers.
#[derive(Debug)]
pub struct RcloneS3 {
    /// The process.
    pub server: Server,
    /// The folder that it serves; a folder in it is a bucket.
    pub folder: PathBuf,
    /// The endpoint, not encrypted; [`Keys::ADMIN`] may do everything.
    pub url: String,
}

/// The `rclone serve webdav` that all tests share.
pub fn rclone_webdav() -> &'static WebDav {
    static WEBDAV: LazyLock<WebDav> = LazyLock::new(|| {
        let folder = guard::server_folder("rclone-webdav");
        let [port] = free_ports();
        let data = subfolder(&folder, "data");
        let server = serve("rclone serve webdav", &folder, "webdav", port)
            .args(["--user", USER, "--pass", PASSWORD])
            .arg(&data)
            .start(|| http::answers(port));
        let urls = Urls { http: Some(format!("http://127.0.0.1:{port}/")), ..Urls::default() };
        WebDav { name: "rclone serve webdav", server, folder: data, urls }
    });
    &WEBDAV
}

/// The `rclone serve s3` that all tests share.
pub fn rclone_s3() -> &'static RcloneS3 {
    static S3: LazyLock<RcloneS3> = LazyLock::new(|| {
        let folder = guard::server_folder("rclone-s3");
        let [port] = free_ports();
        let data = subfolder(&folder, "data");
        let server = serve("rclone serve s3", &folder, "s3", port)
            .arg("--auth-key")
            .arg(format!("{},{}", Keys::ADMIN.id, Keys::ADMIN.secret))
            .arg(&data)
            .start(|| http::answers(port));
        RcloneS3 { server, folder: data, url: format!("http://127.0.0.1:{port}") }
    });
    &S3
}

impl RcloneS3 {
    /// Makes a bucket whose name begins with `name`, which must be in lower case. It has to be asked for: folders that
    /// somebody else makes are not seen for minutes.
    pub fn bucket(&self, name: &str) -> String {
        seaweedfs::Bucket::make(unique(name), self.url.clone(), false).name
    }
}

fn serve(name: &'static str, folder: &Path, kind: &str, port: u16) -> Recipe {
    let settings = write_settings(folder, "rclone.conf", "");
    Recipe::new(name, folder, "rclone")
        .privileged()
        .args(["serve", kind, "--addr", &format!("127.0.0.1:{port}")])
        .arg("--config")
        .arg(settings)
        .arg("--cache-dir")
        .arg(folder.join("cache"))
}
