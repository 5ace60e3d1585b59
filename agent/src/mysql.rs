//! What the programs of MariaDB and MySQL are given to run: where to connect to and as whom, and how names and texts are written
//! in statements.

use std::path::Path;

/// The environment variable that they take a password from, which on a command line everybody could read.
pub(crate) const PASSWORD: &str = "MYSQL_PWD";

/// What makes MariaDB's programs prove the server by the authority that has signed for it.
pub(crate) const MARIADB_PROVES: &str = "--ssl-verify-server-cert";

/// The same of MySQL's.
pub(crate) const MYSQL_PROVES: &str = "--ssl-mode=VERIFY_IDENTITY";

/// Where a server is, and as whom it is connected to. What is absent is as the programs have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// A name or address, or the path of a socket.
    pub(crate) host: Option<&'a str>,
    /// The port.
    pub(crate) port: Option<u16>,
    /// The account.
    pub(crate) user: Option<&'a str>,
    /// The certificate authority that has to have signed for the server.
    pub(crate) ca_file: Option<&'a Path>,
    /// What makes this program prove the server.
    pub(crate) prove: &'a str,
}

impl Place<'_> {
    /// The same as options of the programs.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let host = |host: &str| format!("--{}={host}", if host.starts_with('/') { "socket" } else { "host" });
        let mut arguments: Vec<String> = self.host.map(host).into_iter().collect();
        arguments.extend(self.port.map(|port| format!("--port={port}")));
        arguments.extend(self.user.map(|user| format!("--user={user}")));
        let prove = |path: &Path| [self.prove.to_owned(), format!("--ssl-ca={}", path.display())];
        arguments.extend(self.ca_file.map(prove).into_iter().flatten());
        arguments
    }
}

/// A name as a statement has it.
pub(crate) fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as a statement has it.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
