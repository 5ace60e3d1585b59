//! What servers say, and which of them have what.

use super::{has_stages, is_passing};

#[test]
fn a_session_that_was_ended_for_its_silence_is_begun_anew_and_one_that_did_not_begin_is_not() {
    let lost = "the session at the server was lost; it said: ";
    assert!(is_passing(&format!("{lost}ERROR 2006 (HY000) at line 13: Server has gone away")));
    let inactive = "The client was disconnected by the server because of inactivity. See wait_timeout";
    assert!(is_passing(&format!("{lost}ERROR 4031 (HY000) at line 13: {inactive}")));
    assert!(!is_passing(&format!("{lost}ERROR 2002 (HY000): Can't connect to local server")));
    assert!(!is_passing(&format!("{lost}ERROR 1045 (28000): Access denied for user 'a'@'localhost'")));
}

#[test]
fn versions_with_stages_are_known() {
    assert!(has_stages(true, "10.4.0") && has_stages(true, "11.0.2") && has_stages(true, "10.11.19"));
    assert!(!has_stages(true, "10.3.39") && !has_stages(false, "8.0.40") && !has_stages(true, ""));
}
