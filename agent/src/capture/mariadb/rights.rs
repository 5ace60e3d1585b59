//! What the account of a backup may do, and what it would have to be granted.
//!
//! A table or trigger that the account may not see is not missed by a dump: it is silently left out. So the rights are
//! looked up, and not tried.

use crate::mysql::{self, literal};

/// Rights that can be had for all databases only.
const SERVER: [&str; 2] = ["RELOAD", "PROCESS"];

/// Rights that are needed in each database.
const DATABASE: [&str; 4] = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"];

/// An account that somebody has logged in as.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// As statements have it, such as `'offsite'@'localhost'`.
    quoted: String,
    /// The same and its role, as the catalog has them.
    grantees: String,
}

impl Account {
    /// `user` is what `CURRENT_USER()` says, `role` what `CURRENT_ROLE()` does.
    pub(super) fn new(user: &str, role: &str) -> Self {
        let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
        let quoted = format!("'{name}'@'{host}'");
        let role = role.split_once('@').map_or(role, |(role, _)| role).trim_matches('`');
        let grantees = [quoted.clone(), format!("'{role}'@''"), format!("'{role}'@'%'"), format!("'{role}'")];
        Self { quoted, grantees: grantees.map(|grantee| literal(&grantee)).join(", ") }
    }

    /// A question whose rows are the rights that it lacks for the whole server.
    pub(super) fn lacks_at_server(&self) -> String {
        format!("{} WHERE NOT {};", needed(&SERVER), self.has_everywhere())
    }

    /// The same for `database`.
    pub(super) fn lacks_in(&self, database: &str) -> String {
        format!(
            "{} WHERE NOT {} AND NOT EXISTS (SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES s WHERE \
             s.PRIVILEGE_TYPE = p AND {} LIKE s.TABLE_SCHEMA AND s.GRANTEE IN ({}));",
            needed(&DATABASE),
            self.has_everywhere(),
            literal(database),
            self.grantees
        )
    }

    /// A question whose row is `1` if it may read the accounts of the server.
    pub(super) fn reads_accounts(&self) -> String {
        format!("SELECT {} FROM (SELECT 'SELECT' AS p) needed;", self.has_everywhere())
    }

    /// What to do about rights that are lacking, in one sentence; none lacking is fine.
    pub(super) fn advice(&self, lacking: &[String], database: Option<&str>) -> Result<(), String> {
        if lacking.is_empty() {
            return Ok(());
        }
        let (rights, account) = (lacking.join(", "), &self.quoted);
        let (on, which) = match database {
            Some(database) => (format!("{}.*", mysql::name(database)), format!(" in {database}")),
            None => ("*.*".to_owned(), String::new()),
        };
        Err(format!("the account lacks rights{which}; run `GRANT {rights} ON {on} TO {account};`"))
    }

    fn has_everywhere(&self) -> String {
        format!(
            "EXISTS (SELECT 1 FROM information_schema.USER_PRIVILEGES u WHERE u.PRIVILEGE_TYPE = p AND u.GRANTEE IN ({}))",
            self.grantees
        )
    }
}

fn needed(rights: &[&str]) -> String {
    let rows: Vec<String> = rights.iter().map(|right| format!("SELECT '{right}' AS p")).collect();
    format!("SELECT p FROM ({}) needed", rows.join(" UNION ALL "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_granted_by_what_is_advised() {
        let account = Account::new("offsite@10.0.%", "NULL");
        assert_eq!(account.advice(&[], None), Ok(()));
        let lacking = ["RELOAD".to_owned(), "PROCESS".to_owned()];
        let advice = account.advice(&lacking, None).unwrap_err();
        assert_eq!(advice, "the account lacks rights; run `GRANT RELOAD, PROCESS ON *.* TO 'offsite'@'10.0.%';`");
        assert!(account.advice(&lacking, Some("a`b")).unwrap_err().contains("ON `a``b`.* TO"));
        assert!(account.lacks_in("it's").contains("'it''s' LIKE"));
    }
}
