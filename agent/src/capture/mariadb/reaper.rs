//! Ends dumps at the server when it has not heard of us for a while.
//!
//! A dump that waits for us, or that we no longer listen to because the line went dead, would keep its snapshot for as long
//! as the server waits for any client, which is eight hours by default; and the program that makes it sets that time
//! itself. So a block of statements runs at the server that looks whether the session is still there that speaks every
//! half second, and when it is gone, ends the dumps.

/// Between two looks, in seconds.
const LOOK: u32 = 1;

/// The statements: for as long as the session with the number `keeper` is there, nothing happens; then those with the numbers
/// `dumps` are ended.
pub(super) fn block(keeper: &str, dumps: &[String]) -> String {
    // One of them may have ended well before.
    let handler = "DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;";
    let there = format!("EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {keeper})");
    let kills: String = dumps.iter().map(|dump| format!(" KILL CONNECTION {dump};")).collect();
    format!(
        "DELIMITER //\nBEGIN NOT ATOMIC {handler} WHILE {there} DO DO SLEEP({LOOK}); END WHILE;{kills} END//\nDELIMITER ;"
    )
}
