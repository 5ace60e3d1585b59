//! Ends dumps at the server when it has not heard of us for a while.
//!
//! A dump that waits for us, or that we no longer listen to because the line went dead, would keep its snapshot for as long
//! as the server waits for any client, which is eight hours by default; and the program that makes it sets that time
//! itself. So a block of statements runs at the server that looks whether the session is still there that speaks every
//! half second, and when it is gone, ends the dumps.

use std::thread;
use std::time::{Duration, Instant};

use super::dump::{self, number_of};
use crate::capture::session::Session;
use crate::capture::settings::MariaDbSource;

/// How long the server may take to begin.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks, in seconds.
const LOOK: u32 = 1;

/// Has `dumps` ended as soon as `keeper` is gone: a session that sees to it for as long as it lives, and its number. It goes on
/// at the server when this side is gone. `ask` puts a question to the server, by another session.
pub(super) fn start(
    source: &MariaDbSource,
    silence: Duration,
    keeper: &str,
    dumps: &[String],
    mut ask: impl FnMut(&str) -> Result<Vec<String>, String>,
) -> Result<(Session, String), String> {
    let mut session = dump::session(source, silence)?;
    let number = number_of(&mut session)?;
    session.send(&block(keeper, dumps)).map_err(|error| error.to_string())?;
    // It answers nothing, and must be there before the line can go dead.
    let sleeps = format!("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number} AND INFO LIKE 'DO SLEEP%';");
    let deadline = Instant::now() + STARTED_WITHIN;
    while ask(&sleeps)?.is_empty() {
        if Instant::now() > deadline {
            return Err("the server did not begin to watch over the dumps in time".to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok((session, number))
}

/// The statements: for as long as the session with the number `keeper` is there, nothing happens; then those with the numbers
/// `dumps` are ended.
fn block(keeper: &str, dumps: &[String]) -> String {
    // One of them may have ended well before.
    let handler = "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;";
    let there = format!("EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {keeper})");
    let kills: String = dumps.iter().map(|dump| format!(" KILL CONNECTION {dump};")).collect();
    format!(
        "DELIMITER //\nBEGIN NOT ATOMIC {handler} WHILE {there} DO DO SLEEP({LOOK}); END WHILE;{kills} END//\nDELIMITER ;"
    )
}
