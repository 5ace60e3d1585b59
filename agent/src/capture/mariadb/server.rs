//! One server: a session that holds it, one that ends that in time, one that keeps its tables from being changed, and a
//! dump of each database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::count::Counter;
use super::dump::{self, Dump, number_of};
use super::keeper::{self, Keeper};
use super::reaper;
use super::rights::Account;
use crate::capture::Copies;
use crate::capture::guard::Guard;
use crate::capture::problems::Problems;
use crate::capture::session::{Session, SessionError};
use crate::capture::settings::{CutSettings, Dialect, MariaDbSource};
use crate::generation::SourceRecord;
use crate::mysql::literal;
use crate::rows::Rows;

/// Connecting, and questions about the catalog.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Limits that the server itself keeps, whatever becomes of us: the session that holds writers is ended when it is not
/// heard of for five seconds.
const HOLDER_LIMITS: &str = "SET SESSION wait_timeout = 5;";

/// Before a cut is had, what keeps definitions from being changed is let go and taken anew after this long: who waits to
/// change them has his turn.
const STAGE_AGAIN: Duration = Duration::from_secs(2);

/// What is waited before that is begun anew which somebody or something was in the way of.
const PAUSE: Duration = Duration::from_millis(100);

const LOST: &str = "the session at the server was lost";

/// Databases of the server's own.
const OWN: &str = "('information_schema', 'performance_schema', 'mysql', 'sys')";

/// A server that is connected to.
#[derive(Debug)]
pub(super) struct Server {
    source: MariaDbSource,
    folder: PathBuf,
    hold_limit: Duration,
    silence: Duration,
    account: Account,
    engine: String,
    is_mariadb: bool,
    has_stages: bool,
    /// Holds writers, and before that keeps definitions from being changed.
    holder: Option<Session>,
    /// Since when it has done the latter.
    staged: Option<Instant>,
    /// Lets the holder's session be ended at the limit, also if this process is stopped by then.
    watchdog: Option<Session>,
    watchdog_number: String,
    /// The number of the holder's session at the server.
    number: String,
    /// Keeps the tables from being emptied, altered or dropped until they have been dumped. It is there for as long as
    /// dumps are, since these are ended at the server when it is gone.
    keeper: Option<Keeper>,
    /// Ends the dumps at the server if the keeper is gone; and the number of its session.
    reaper: Option<(Session, String)>,
    /// Counts rows as of the hold.
    counter: Option<Counter>,
    /// Why copies of this server are not of one instant, whatever is done, and what to do about it.
    flaw: Option<String>,
    dumps: Vec<Dump>,
    /// The numbers of their sessions.
    dump_numbers: Vec<String>,
    held: Option<Instant>,
    held_us: u64,
    /// Until when writers may be held.
    until: Instant,
    /// What the server says of the instant.
    gtid: Option<String>,
}

impl Server {
    /// Connects. Dumps will go to `folder`. The error is one sentence.
    pub(super) fn open(source: &MariaDbSource, folder: &Path, cut: &CutSettings) -> Result<Self, String> {
        let mut session = dump::session(source, cut.silence)?;
        let rows = session.ask("SELECT VERSION(), CURRENT_USER(), COALESCE(CURRENT_ROLE(), '');", ANSWER_WITHIN);
        let rows = rows.map_err(|error| format!("the server cannot be used: {error}"))?;
        let fields: Vec<&str> = rows.first().map(|row| row.split('\t').collect()).unwrap_or_default();
        let [version, user, role] = fields.as_slice() else {
            return Err("the server did not say what it is".to_owned());
        };
        let is_mariadb = version.contains("MariaDB");
        let number = version.split('-').next().unwrap_or_default();
        let has_stages = has_stages(is_mariadb, number);
        if source.dialect == Dialect::MariaDb && !has_stages {
            return Err(format!("{version} has no BACKUP STAGE, which came with MariaDB 10.4; say type = \"mysql\""));
        }
        let mut server = Self {
            source: source.clone(),
            folder: folder.to_owned(),
            hold_limit: cut.hold_limit,
            silence: cut.silence,
            account: Account::new(user, role),
            engine: format!("{} {number}", if is_mariadb { "MariaDB" } else { "MySQL" }),
            is_mariadb,
            has_stages,
            holder: None,
            staged: None,
            watchdog: None,
            watchdog_number: String::new(),
            number: String::new(),
            keeper: None,
            counter: None,
            reaper: None,
            flaw: None,
            dumps: Vec::new(),
            dump_numbers: Vec::new(),
            held: None,
            held_us: 0,
            until: Instant::now(),
            gtid: None,
        };
        let peculiar = dump::peculiar(source.dialect);
        for database in server.look(&mut session)? {
            server.dumps.push(Dump::new(database, folder, peculiar.clone()));
        }
        let end = Instant::now() + cut.barrier_within;
        loop {
            match server.ready() {
                Ok(()) => return Ok(server),
                // Somebody has a table for himself, is changing it, or has just dropped it; or this machine was so slow that the
                // server has ended a session. That passes.
                Err(why) if is_passing(&why) && Instant::now() < end => thread::sleep(PAUSE),
                Err(why) => return Err(why),
            }
        }
    }

    /// The databases that are to be dumped, if the account may do everything that takes.
    fn look(&self, session: &mut Session) -> Result<Vec<String>, String> {
        let mut ask = |question: &str| session.ask(question, ANSWER_WITHIN).map_err(|error| error.to_string());
        self.account.advice(&ask(&self.account.lacks_at_server())?, None)?;
        let all = format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {OWN};");
        let all = ask(&all)?;
        let databases = if self.source.databases.is_empty() { all.clone() } else { self.source.databases.clone() };
        for database in &databases {
            self.account.advice(&ask(&self.account.lacks_in(database))?, Some(database))?;
            if !all.contains(database) {
                return Err(format!("there is no database {database} at this server"));
            }
        }
        Ok(databases)
    }

    /// Whether its copies can be of one instant. If not, every set with them is sequential: the error says why.
    pub(super) fn is_without_flaw(&self) -> Result<(), String> {
        self.flaw.clone().map_or(Ok(()), Err)
    }

    pub(super) fn databases(&self) -> usize {
        self.dumps.len()
    }

    /// Whether rows can be counted if commits are held for a moment; not at the price of waiting for whole statements.
    pub(super) fn counts_when_held(&self) -> bool {
        self.has_stages && self.counter.is_some()
    }

    pub(super) fn was_held(&self) -> bool {
        self.held_us > 0
    }

    fn names(&self) -> String {
        self.dumps.iter().map(|dump| literal(&dump.database)).collect::<Vec<_>>().join(", ")
    }

    /// Goes through what may have to wait, and brings the dumps to their gates. Nothing is held, or left so, on failure.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let ready = self.stage().and_then(|()| self.gates()).and_then(|()| self.reap());
        ready.inspect_err(|_| self.unlock())
    }

    fn stage(&mut self) -> Result<(), String> {
        self.held_us = 0;
        let late = self.staged.is_some_and(|since| since.elapsed() > STAGE_AGAIN);
        if !late && self.staged.is_some() && self.are_there() {
            return Ok(());
        }
        self.unlock();
        let mut holder = dump::session(&self.source, self.silence)?;
        let mut statements = vec![HOLDER_LIMITS];
        if self.source.dialect == Dialect::MariaDb {
            statements.extend(["BACKUP STAGE START;", "BACKUP STAGE FLUSH;", "BACKUP STAGE BLOCK_DDL;"]);
        }
        for statement in statements {
            holder.ask(statement, ANSWER_WITHIN).map_err(|error| error.to_string())?;
        }
        self.number = number_of(&mut holder)?;
        (self.holder, self.staged) = (Some(holder), Some(Instant::now()));
        self.counter = Counter::open(&self.source, self.silence, self.is_mariadb);
        let mut watchdog = dump::session(&self.source, self.silence)?;
        self.watchdog_number = number_of(&mut watchdog)?;
        self.watchdog = Some(watchdog);
        let names = self.names();
        let keeper = match self.keeper.take() {
            Some(keeper) => keeper,
            None => Keeper::open(&self.source, self.silence)?,
        };
        self.flaw = self.keeper.insert(keeper).keep(&names)?;
        Ok(())
    }

    /// Whether the sessions that hold and keep answer.
    fn are_there(&mut self) -> bool {
        let holder = self.ask_holder("SELECT 1;", ANSWER_WITHIN);
        holder.is_ok() && self.keeper.as_mut().is_some_and(Keeper::keeps)
    }

    fn gates(&mut self) -> Result<(), String> {
        if self.dumps.iter().all(Dump::has_stopped) {
            return Ok(());
        }
        for dump in &mut self.dumps {
            dump.end();
            dump.start(&self.source)?;
        }
        // It watches over those that were there before, and would go on doing so.
        if let (Some((_, number)), Some(keeper)) = (self.reaper.take(), &mut self.keeper) {
            keeper.end_session(&number);
        }
        let keeper = self.keeper.as_ref().map_or_else(|| "0".to_owned(), |keeper| keeper.number().to_owned());
        let (mut dumps, watchdog) = (std::mem::take(&mut self.dumps), self.watchdog_number.clone());
        let numbers =
            dump::stopped(&mut dumps, &[&keeper, &watchdog], |question| self.ask_holder(question, ANSWER_WITHIN));
        self.dumps = dumps;
        self.dump_numbers = numbers?;
        Ok(())
    }

    /// Has the dumps ended at the server if it does not hear of us any more.
    fn reap(&mut self) -> Result<(), String> {
        let keeper = self.keeper.as_ref().map(|keeper| keeper.number().to_owned());
        if let (true, None, Some(keeper)) = (self.has_stages, &self.reaper, keeper) {
            let (source, silence, dumps) = (self.source.clone(), self.silence, self.dump_numbers.clone());
            let ask = |question: &str| self.ask_holder(question, ANSWER_WITHIN);
            self.reaper = Some(reaper::start(&source, silence, &keeper, &dumps, ask)?);
        }
        Ok(())
    }

    pub(super) fn hold(&mut self, left: Duration) -> Result<(), String> {
        self.until = Instant::now() + left;
        let watchdog = self.watchdog.as_mut().ok_or(LOST)?;
        let kill = format!("DO SLEEP({}); KILL CONNECTION {};", left.as_secs_f64(), self.number);
        watchdog.send(&kill).map_err(|error| error.to_string())?;
        // What is not heard of for a second is ended by the server itself.
        let mut limits = "SET SESSION wait_timeout = 1".to_owned();
        if self.is_mariadb {
            limits.push_str(&format!(", SESSION max_statement_time = {}", left.as_secs_f64()));
        }
        limits.push(';');
        self.held = Some(Instant::now());
        let statement = match self.source.dialect {
            Dialect::MariaDb => "BACKUP STAGE BLOCK_COMMIT;",
            Dialect::MySql => "FLUSH TABLES WITH READ LOCK;",
        };
        // At once: each answer that is waited for is time that others are held for.
        self.tell_holder(&[&limits, statement])?;
        self.hear_holder(2, left).map(drop)
    }

    /// Lets the dumps take their snapshots.
    pub(super) fn let_dumps(&mut self) -> Result<(), String> {
        self.dumps.iter_mut().try_for_each(Dump::open)?;
        // All commits are held, or the dump alone is the pin, and nothing else would be of its instant.
        if let Some(counter) = self.counter.as_mut().filter(|_| self.held.is_some()) {
            counter.pin();
        }
        self.tell_holder(&[match self.is_mariadb {
            true => "SELECT @@gtid_binlog_pos;",
            false => "SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '');",
        }])
    }

    /// Waits until they have them.
    pub(super) fn pin(&mut self) -> Result<(), String> {
        for dump in &mut self.dumps {
            let left = match self.held {
                Some(_) => self.until.saturating_duration_since(Instant::now()),
                None => self.hold_limit,
            };
            dump.pinned(left)?;
        }
        self.gtid = self.hear_holder(1, self.hold_limit)?.into_iter().next();
        if let Some(counter) = self.counter.as_mut().filter(|_| self.held.is_some()) {
            counter.wait_for_pin(self.until.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// A session that was lost answers nothing, and is never opened anew while it holds.
    pub(super) fn prove(&mut self) -> Result<(), String> {
        let left = self.until.saturating_duration_since(Instant::now());
        self.ask_holder("SELECT 1;", left).map(drop)
    }

    pub(super) fn release(&mut self) -> Result<(), String> {
        let statement = match self.source.dialect {
            Dialect::MariaDb => "BACKUP STAGE END;",
            Dialect::MySql => "UNLOCK TABLES;",
        };
        let ended = self.ask_holder(statement, self.hold_limit);
        // Its session keeps nothing any more. That it ends can wait: others may still be held.
        self.staged = None;
        if let Some(held) = self.held.take() {
            self.held_us = u64::try_from(held.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        ended.map(drop)
    }

    /// Ends the session that holds, and with it whatever it holds; the dumps go on.
    pub(super) fn unstage(&mut self) {
        (self.holder, self.staged, self.watchdog) = (None, None, None);
    }

    /// Lets everything go but dumps that have not begun.
    pub(super) fn let_go(&mut self) {
        // The server lets go when the session ends, and it ends now.
        if self.held.take().is_some() {
            self.unlock();
        }
        self.dumps.iter_mut().for_each(Dump::reset);
    }

    fn unlock(&mut self) {
        self.unstage();
        self.counter = None;
        if !self.keeper.as_mut().is_some_and(|keeper| keeper.let_go(self.hold_limit)) {
            (self.keeper, self.reaper) = (None, None);
            self.dumps.iter_mut().for_each(Dump::end);
        }
    }

    /// From now on the tables are watched over until they have been dumped.
    pub(super) fn guard(&mut self) -> Option<Guard> {
        self.keeper.take().map(Keeper::into_guard)
    }

    pub(super) fn describe(&self, record: &mut SourceRecord) {
        record.engine = Some(self.engine.clone());
        record.held_us = self.held_us;
        record.position.extend(self.gtid.clone().map(|gtid| ("gtid".to_owned(), gtid)));
    }

    /// Waits for the dumps that have been pinned, with a `guard`, or makes them now. If there will be another cut, it stops
    /// as soon as this one is void. Answers with the rows of each dump's tables, by the name of its file, as far as they
    /// were counted.
    pub(super) fn copy(
        mut self,
        guard: Option<Guard>,
        again: bool,
        problems: &mut Problems,
        copies: &mut Copies,
    ) -> BTreeMap<String, Rows> {
        let mut left = std::mem::take(&mut self.dumps);
        let mut counted = BTreeMap::new();
        if let Some(guard) = guard {
            counted = self.finish(&mut left, &guard, copies);
            if let Err(why) = guard.finish() {
                copies.void.get_or_insert(why);
                counted.clear();
            }
            if again && copies.void.is_some() {
                return BTreeMap::new();
            }
        }
        copies.flaw = copies.flaw.take().or(self.flaw.take());
        for dump in &mut left {
            if let Err(why) = self.make_at_leisure(dump) {
                problems.missing(None, why);
                // What is left of it is no dump.
                dump.remove();
            }
        }
        self.copy_accounts(problems);
        counted
    }

    /// Waits for the dumps that have been pinned, and counts meanwhile. What has come to nothing is `left`.
    fn finish(&mut self, left: &mut Vec<Dump>, guard: &Guard, copies: &mut Copies) -> BTreeMap<String, Rows> {
        let databases: Vec<(String, String)> =
            left.iter().map(|dump| (dump.database.clone(), dump.file_name())).collect();
        let (counter, stop) = (self.counter.take().filter(Counter::is_pinned), guard.stop());
        let mut counted = thread::scope(|scope| {
            let counting = counter.map(|counter| scope.spawn(|| counter.count(&databases, stop)));
            left.retain_mut(|dump| match dump.finish(stop) {
                Ok(()) => false,
                Err(why) => {
                    copies.void.get_or_insert(guard.why().map_or(why, str::to_owned));
                    true
                }
            });
            counting.and_then(|counting| counting.join().ok()).unwrap_or_default()
        });
        counted.retain(|file, _| left.iter().all(|dump| dump.file_name() != *file));
        counted
    }

    /// Makes a dump now, of no cut.
    fn make_at_leisure(&self, dump: &mut Dump) -> Result<(), String> {
        let mut session = dump::session(&self.source, self.silence)?;
        let number = number_of(&mut session)?;
        dump.end();
        dump.start(&self.source)?;
        let mut ask = |question: &str| session.ask(question, ANSWER_WITHIN).map_err(|error| error.to_string());
        let dumps = dump::stopped(std::slice::from_mut(dump), &[&number], &mut ask)?;
        let reap = || reaper::start(&self.source, self.silence, &number, &dumps, ask);
        let _reaper = self.has_stages.then(reap).transpose()?;
        let guard = keeper::guard(session);
        let made = dump.open().and_then(|()| dump.finish(guard.stop()));
        made.map_err(|why| guard.why().map_or(why, str::to_owned))
    }

    /// Accounts belong to no database and to no snapshot.
    fn copy_accounts(&self, problems: &mut Problems) {
        let asked = dump::session(&self.source, self.silence)
            .and_then(|mut s| s.ask(&self.account.reads_accounts(), ANSWER_WITHIN).map_err(|error| error.to_string()));
        let why = match asked {
            Ok(rows) if self.is_mariadb && rows.first().is_some_and(|row| row == "1") => {
                match dump::accounts(&self.source, &self.folder) {
                    Ok(()) => return,
                    Err(why) => why,
                }
            }
            Ok(_) => "this account may not read them".to_owned(),
            Err(why) => why,
        };
        problems.skipped(None, format!("the accounts of the server are not in the copy: {why}"));
    }

    /// Asks the session that holds. One that was lost is never opened anew.
    fn ask_holder(&mut self, statement: &str, limit: Duration) -> Result<Vec<String>, String> {
        let holder = self.holder.as_mut().ok_or(LOST)?;
        let answered = holder.ask(statement, limit);
        self.known(answered)
    }

    /// Sends it statements that do not wait for each other's answers.
    fn tell_holder(&mut self, statements: &[&str]) -> Result<(), String> {
        let holder = self.holder.as_mut().ok_or(LOST)?;
        let sent = statements.iter().try_for_each(|statement| holder.send(statement));
        self.known(sent)
    }

    /// What it answers to the last of `count` statements that it has been sent.
    fn hear_holder(&mut self, count: usize, limit: Duration) -> Result<Vec<String>, String> {
        let holder = self.holder.as_mut().ok_or(LOST)?;
        let answered = (0..count).try_fold(Vec::new(), |_, _| holder.receive(limit));
        self.known(answered)
    }

    /// A session that has failed is not used again.
    fn known<T>(&mut self, answer: Result<T, SessionError>) -> Result<T, String> {
        answer.map_err(|error| {
            self.holder = None;
            error.to_string()
        })
    }
}

/// Whether this is the answer of a server at which somebody is changing tables, or that has ended a session which it had not
/// heard of for the time of its limits.
fn is_passing(why: &str) -> bool {
    // MySQL 8.0.24 and newer say it in words, under a number that means something else to MariaDB.
    let ended = "disconnected by the server because of inactivity";
    ["Lock wait timeout", "ERROR 1146 ", "ERROR 2006 (", "ERROR 2013 (", ended].iter().any(|known| why.contains(known))
}

/// Whether this version has `BACKUP STAGE`.
fn has_stages(is_mariadb: bool, number: &str) -> bool {
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    is_mariadb && (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (10, 4)
}

#[cfg(test)]
mod tests;
