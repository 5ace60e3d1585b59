//! Private certificate authorities for servers on the loopback interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::guard;

/// An authority of its own and a server's certificate that it signed, as PEM files.
#[derive(Debug)]
pub struct Authority {
    /// The authority's certificate: what a client has to trust.
    pub ca: PathBuf,
    /// The server's certificate, for `localhost`, names below it, and 127.0.0.1.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

/// The authority that signs for all servers of this process.
pub fn authority() -> &'static Authority {
    static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new("tls"));
    &AUTHORITY
}

/// An authority that signs for no server: a client that trusts only it must refuse them all.
pub fn stranger() -> &'static Authority {
    static STRANGER: LazyLock<Authority> = LazyLock::new(|| Authority::new("tls-stranger"));
    &STRANGER
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = guard::folder().join(name);
        std::fs::create_dir(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        std::fs::write(
            file("extensions"),
            "subjectAltName=DNS:localhost,DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1\n\
             basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
        )
        .unwrap();
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        openssl(&folder, |it| {
            it.args(["req", "-x509", "-days", "30", "-subj", "/CN=offsite test authority"]).args(new_key).args([
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ])
        });
        openssl(&folder, |it| {
            it.args(["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"]).args(new_key)
        });
        openssl(&folder, |it| {
            it.args(["x509", "-req", "-days", "30", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]).args([
                "-CAcreateserial",
                "-extfile",
                "extensions",
                "-out",
                "server.pem",
            ])
        });
        // Servers that run as another user must be able to read it. It protects nothing.
        std::fs::set_permissions(file("server.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        Self { ca: file("ca.pem"), certificate: file("server.pem"), key: file("server.key") }
    }
}

fn openssl(folder: &Path, arguments: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new("openssl");
    let result = arguments(command.current_dir(folder)).output().expect("openssl is needed");
    assert!(result.status.success(), "openssl failed: {}", String::from_utf8_lossy(&result.stderr));
}
