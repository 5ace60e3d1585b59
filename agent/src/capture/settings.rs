//! What to capture and how: plain values, checked where each is made. The configuration file is mapped onto them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::patterns::Patterns;
use crate::ids::SourceName;

/// One source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Its name: the first segment of the paths of its files.
    pub name: SourceName,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// An SQLite database that may be in use.
    Sqlite(SqliteSource),
    /// Databases of a PostgreSQL cluster.
    Postgres(PostgresSource),
    /// Databases of a MariaDB or MySQL server.
    MariaDb(MariaDbSource),
    /// A folder and all it holds.
    Folder(FolderSource),
    /// What a program writes.
    Command(CommandSource),
}

impl SourceKind {
    /// Whether it is copied as of one instant with all others that are: a database, an engine that can be held, a folder on
    /// a file system that takes snapshots.
    pub(super) fn is_cut(&self) -> bool {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) | Self::MariaDb(_) => true,
            Self::Command(command) => command.hold.is_some(),
            Self::Folder(folder) => folder.snapshot.is_some(),
        }
    }

    /// Whether what was copied before a cut that came to nothing is of use for the next one.
    pub(super) fn outlives_cuts(&self) -> bool {
        matches!(self, Self::Postgres(PostgresSource { mode: PostgresMode::Physical, .. }))
    }

    /// Its type in the configuration.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::MariaDb(source) => source.dialect.word(),
            Self::Folder(_) => "folder",
            Self::Command(_) => "command",
        }
    }
}

/// An SQLite database that may be in use, with a write-ahead log or a rollback journal.
#[derive(Clone, Debug)]
pub struct SqliteSource {
    /// The database file. The copy has the same name.
    pub path: PathBuf,
}

/// Databases of a PostgreSQL cluster, all dumped as of one instant, and what belongs to the whole cluster: roles,
/// tablespaces. What is not set is as libpq has it, which also looks for passwords in `~/.pgpass`.
#[derive(Clone, Debug, Default)]
pub struct PostgresSource {
    /// A name or address, or the folder of a socket.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The account.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// The certificate authority that has to have signed for the server, by its name. Without it the connection is
    /// encrypted if the server can, and the server is not proved.
    pub ca_file: Option<PathBuf>,
    /// How it is copied.
    pub mode: PostgresMode,
    /// Which databases are dumped; all but templates if there are none.
    pub databases: Vec<String>,
}

/// How a PostgreSQL cluster is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostgresMode {
    /// A dump of each database: smaller, and read by newer versions as well.
    #[default]
    Logical,
    /// The files of the whole server and its log up to the cut: what a server of the same version is started on.
    Physical,
}

/// Databases of a MariaDB or MySQL server, all dumped as of one instant.
#[derive(Clone, Debug, Default)]
pub struct MariaDbSource {
    /// Which of the two.
    pub dialect: Dialect,
    /// A name or address, or the path of a socket.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The account.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// The certificate authority that has to have signed for the server, by its name.
    pub ca_file: Option<PathBuf>,
    /// Which databases; all but the server's own if there are none.
    pub databases: Vec<String>,
}

/// Whose programs are used, and how writers are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// MariaDB 10.4 or newer: `BACKUP STAGE` waits only for commits under way.
    #[default]
    MariaDb,
    /// MySQL, and older MariaDB: `FLUSH TABLES WITH READ LOCK` waits for all statements under way.
    MySql,
}

impl Dialect {
    /// Its type in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }
}

/// A folder and all it holds.
#[derive(Clone, Debug)]
pub struct FolderSource {
    /// The folder.
    pub path: PathBuf,
    /// What of it is copied.
    pub patterns: Patterns,
    /// How it is copied as of the one instant. Without it, it is copied at leisure.
    pub snapshot: Option<SnapshotKind>,
    /// Whether it is as it should be if it holds nothing, although it once held something.
    pub may_be_empty: bool,
}

/// Whose snapshots a folder is copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Those of the Btrfs subvolume that it lies in. Subvolumes within it are not in them.
    Btrfs,
}

/// What a program writes.
#[derive(Clone, Debug)]
pub struct CommandSource {
    /// The program and its arguments, passed on without a shell. `{staging}` in an argument stands for the folder the
    /// program is to write to.
    pub command: Vec<String>,
    /// Where the program's result comes from.
    pub output: Output,
    /// Added to the environment of the program and of the check.
    pub env: BTreeMap<String, EnvValue>,
    /// The program and all it has started are killed after this long.
    pub timeout: Duration,
    /// A program that judges the result, with `{staging}` as above: the source has failed unless it exits with 0.
    pub check: Option<Vec<String>>,
    /// How writers are kept waiting while the instant is fixed. Without it, the command is run at leisure.
    pub hold: Option<CommandHold>,
}

/// The programs of an engine that can keep its writers waiting, each with its arguments, and with `{staging}` as in the
/// command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandHold {
    /// Keeps writers waiting, fixes what the command is going to copy, and ends; it has worked if it exits with 0. What it
    /// leaves running is ended after the release.
    pub hold: Vec<String>,
    /// Lets writers go on, whether they are held or not. After a hold that has worked, it exits with 0 only if they had been
    /// kept waiting until then.
    pub release: Vec<String>,
}

/// Where a program's result comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The files it writes into `{staging}`.
    Folder,
    /// Its standard output, kept as a file of this name: one segment, checked when the capture begins.
    Stdout(String),
}

/// The value of an environment variable.
#[derive(Clone, Debug)]
pub enum EnvValue {
    /// May be seen by anyone.
    Plain(String),
    /// Was looked up by reference, and is never shown.
    Secret(SecretString),
}

/// How the instant is had that all sources are cut at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutSettings {
    /// Writers are never held longer than this. At most [`CutSettings::HOLD_LIMIT_MAX`].
    pub hold_limit: Duration,
    /// How long the writers of a rollback-journal database may be held while it is copied: it cannot be pinned otherwise.
    pub rollback_limit: Duration,
    /// After this long without a barrier, the sources are copied one after another.
    pub barrier_within: Duration,
    /// Tries without holding anybody, before the barrier.
    pub optimistic_tries: u32,
    /// A server that hears nothing of this machine for so long lets go of all that it keeps for a copy. Whole seconds.
    pub silence: Duration,
}

impl CutSettings {
    /// The longest hold limit that can be asked for.
    pub const HOLD_LIMIT_MAX: Duration = Duration::from_secs(2);
}

impl Default for CutSettings {
    fn default() -> Self {
        Self {
            hold_limit: Duration::from_millis(500),
            rollback_limit: Duration::from_secs(30),
            barrier_within: Duration::from_secs(30),
            optimistic_tries: 10,
            silence: Duration::from_secs(60),
        }
    }
}
