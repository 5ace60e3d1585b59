//! What PostgreSQL's client is given to run: through a pipe, since everybody on a machine can read command lines, and
//! without what it would take for commands of its own.

use std::io::{self, PipeReader, Write as _};

/// Tables whose rows are in a dump, as the rest of a question for `nspname` and `relname`: what a capture counts and a drill
/// counts again. Those of an extension are made by the extension; partitions are counted, not what they are parts of.
pub const TABLES_WITH_ROWS: &str = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE relkind = 'r' AND relpersistence <> 't' AND nspname !~ '^pg_' AND nspname <> 'information_schema' \
    AND relname || nspname !~ '[[:cntrl:]]' AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid \
    AND d.classid = 'pg_class'::regclass AND d.deptype = 'e') ORDER BY 1";

/// The lines of a script without those in which a backslash stands: to the client that is a command of its own, which may
/// run a program, and a script that was restored came from elsewhere.
pub fn plain_lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().filter(|line| !line.contains('\\'))
}

/// Calls `run` with the end of a pipe that `statements` come out of: the standard input of a client, which `run` waits for.
/// An error if no pipe could be made.
pub fn fed<T>(statements: String, run: impl FnOnce(PipeReader) -> T) -> io::Result<T> {
    let (reader, mut writer) = io::pipe()?;
    let feeder = std::thread::spawn(move || writer.write_all(statements.as_bytes()));
    let ran = run(reader);
    // A client that ended early has read no more, and has said why.
    drop(feeder.join());
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_the_client_would_run_itself_is_left_out() {
        let script = "CREATE ROLE a;\n\\! touch here\nSELECT 1 \\gexec\nGRANT a TO b;";
        assert_eq!(plain_lines(script).collect::<Vec<_>>(), ["CREATE ROLE a;", "GRANT a TO b;"]);
    }

    #[test]
    fn a_client_may_end_before_it_has_read_everything() {
        let long = "x".repeat(1 << 20);
        let mut first = [0; 4];
        fed(long, |mut pipe| pipe.read_exact(&mut first)).unwrap().unwrap();
        assert_eq!(&first, b"xxxx");
    }
}
