//! The holder's own side: answers what it is asked, and ends when it has to.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::database::{Database, Trouble};
use super::freeze::{FreezeAsk, Frozen};
use super::{Answer, Ask, CopyAsk, Mode};
use crate::entry::unescape;
use crate::platform;

/// Between two tries to pin a database that somebody else has.
const PAUSE: Duration = Duration::from_millis(2);

/// What the copy of a held database may take longer than its limit before the holder ends itself.
const GRACE: Duration = Duration::from_secs(1);

/// Answers the lines of `input` on `output` until it is told to close.
///
/// `end` ends the process: it is called when writers have been held for too long, and when `input` ends without a word.
pub fn serve(input: impl BufRead + Send + 'static, mut output: impl Write, end: fn()) -> io::Result<()> {
    let frozen = Frozen::default();
    let held = frozen.clone();
    let end = move || {
        // Nobody is there who could be told how it went.
        let _released = held.thaw();
        end();
    };
    let (sender, lines) = channel();
    let left_alone = end.clone();
    thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        // Nobody is there any more: nothing is worth holding a writer for.
        left_alone();
    });
    let mut holder = Serving { databases: Vec::new(), first: 0, frozen: frozen.clone(), timer: Timer::start(end) };
    let served = serve_lines(lines, &mut output, &mut holder);
    // Whatever made it end; and somebody else may be at it.
    let _released = frozen.thaw();
    served
}

fn serve_lines(
    lines: impl IntoIterator<Item = String>,
    mut output: &mut impl Write,
    holder: &mut Serving,
) -> io::Result<()> {
    for line in lines {
        let ask = serde_json::from_str::<Ask>(&line)?;
        let closing = matches!(ask, Ask::Close);
        let answer = match ask {
            Ask::Copy(ask) => holder.copy(&ask, &mut output)?,
            Ask::Freeze(ask) => holder.freeze(&ask, &mut output),
            ask => holder.answer(ask),
        };
        tell(&mut output, &answer)?;
        if closing {
            return Ok(());
        }
    }
    Ok(())
}

fn tell(output: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

struct Serving {
    /// As they were asked for; none where one could not be opened.
    databases: Vec<Option<Database>>,
    /// The one that is held first.
    first: usize,
    frozen: Frozen,
    timer: Timer,
}

impl Serving {
    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Open { paths } => self.open(&paths),
            Ask::Versions => match self.open_databases().map(|database| database.version()).collect() {
                Ok(versions) => Answer::Versions(versions),
                Err(trouble) => trouble.into(),
            },
            Ask::Hold { limit_us } => {
                self.timer.set(Some(Duration::from_micros(limit_us)));
                self.hold()
            }
            Ask::Pin => {
                let pinned = self.open_databases().try_for_each(Database::pin);
                self.all_or_none(pinned)
            }
            Ask::Thaw => {
                self.timer.set(None);
                match self.frozen.thaw() {
                    Some(Ok(())) => Answer::Done,
                    Some(Err(why)) => Answer::Failed { why, full: false },
                    None => Answer::Busy("the hold was over before its time".to_owned()),
                }
            }
            Ask::IsFrozen => match self.frozen.is_held() {
                true => Answer::Done,
                false => Answer::Busy("the hold was over before its time".to_owned()),
            },
            Ask::Prove => match self.open_databases().try_for_each(|database| database.prove()) {
                Ok(()) => Answer::Done,
                Err(trouble) => trouble.into(),
            },
            Ask::Release { limit_us } => {
                let mut left = false;
                for database in self.open_databases() {
                    match database.mode() {
                        Mode::Rollback => left = true,
                        Mode::Wal | Mode::Plain => database.release(),
                    }
                }
                self.timer.set(left.then(|| Duration::from_micros(limit_us) + GRACE));
                Answer::Done
            }
            Ask::LetGo => {
                self.let_go();
                Answer::Done
            }
            Ask::Close => {
                self.let_go();
                self.databases.clear();
                Answer::Done
            }
            Ask::Copy(_) | Ask::Freeze(_) => {
                Answer::Failed { why: "this is answered elsewhere".to_owned(), full: false }
            }
        }
    }

    fn freeze(&mut self, ask: &FreezeAsk, output: &mut impl Write) -> Answer {
        let end = Instant::now() + Duration::from_micros(ask.limit_us);
        // If nobody listens any more, the end of the input says so.
        let begun = |group| drop(tell(output, &Answer::Begun(group)));
        match self.frozen.freeze(ask, begun) {
            Ok(()) => {
                self.timer.set(Some(end.saturating_duration_since(Instant::now())));
                Answer::Done
            }
            Err(why) => Answer::Busy(why),
        }
    }

    fn open(&mut self, paths: &[String]) -> Answer {
        self.databases.clear();
        self.first = 0;
        let mut opened = Vec::new();
        for path in paths {
            match Database::open(&path_of(path)) {
                // One connection of ours would wait for the other for ever.
                Ok((database, _)) if self.open_databases().any(|other| other.file() == database.file()) => {
                    self.databases.push(None);
                    opened.push(Err("another source is the same database already; remove one of the two".to_owned()));
                }
                Ok((database, state)) => {
                    self.databases.push(Some(database));
                    opened.push(Ok(state));
                }
                Err(why) => {
                    self.databases.push(None);
                    opened.push(Err(why));
                }
            }
        }
        Answer::Opened(opened)
    }

    fn open_databases(&mut self) -> impl Iterator<Item = &mut Database> {
        self.databases.iter_mut().flatten()
    }

    /// Holds all or none, first the one that was not to be had last time: the others need not be held in vain again.
    fn hold(&mut self) -> Answer {
        let first = self.first.min(self.databases.len());
        let (before, from) = self.databases.split_at_mut(first);
        let mut turns = (first..).zip(from).chain((0..).zip(before));
        let held = turns.try_for_each(|(at, database)| {
            let held = database.as_mut().map_or(Ok(()), Database::hold);
            held.map_err(|trouble| (at, trouble))
        });
        let held = held.map_err(|(at, trouble)| {
            self.first = at;
            trouble
        });
        self.all_or_none(held)
    }

    fn all_or_none(&mut self, done: Result<(), Trouble>) -> Answer {
        match done {
            Ok(()) => Answer::Done,
            Err(trouble) => {
                self.let_go();
                trouble.into()
            }
        }
    }

    fn let_go(&mut self) {
        self.open_databases().for_each(Database::let_go);
        self.timer.set(None);
    }

    fn copy(&mut self, ask: &CopyAsk, output: &mut impl Write) -> io::Result<Answer> {
        let Some(Some(database)) = self.databases.get_mut(ask.database) else {
            return Ok(Answer::Failed { why: "this database is not open".to_owned(), full: false });
        };
        let limit = Duration::from_micros(ask.limit_us);
        if let Some(within) = ask.pin_within_us {
            let pinned = pin_alone(database, Duration::from_micros(within));
            if let (Ok(()), Mode::Rollback) = (&pinned, database.mode()) {
                self.timer.set(Some(limit + GRACE));
            }
            if let Err(trouble) = pinned {
                return Ok(trouble.into());
            }
        }
        let mut told = Ok(());
        let done = database.pinned().and_then(|pinned| {
            if ask.known.is_some() && ask.known == pinned.stamp {
                return Ok(false);
            }
            let progress = |bytes| {
                if told.is_ok() {
                    told = tell(output, &Answer::Progress(bytes));
                }
            };
            database.copy(&path_of(&ask.to), ask.like.as_deref().map(path_of).as_deref(), limit, progress)
        });
        told?;
        // Before anything else, so that whoever waits can go on; what is pinned is still known then.
        database.release();
        let answer = match (done, database.pinned()) {
            (Ok(false), Ok(pinned)) => Answer::Unchanged(pinned),
            (Ok(true), Ok(pinned)) => Answer::Copied(pinned),
            (Err(trouble), _) | (_, Err(trouble)) => trouble.into(),
        };
        database.let_go();
        if !self.open_databases().any(|database| database.mode() == Mode::Rollback && database.is_pinned()) {
            self.timer.set(None);
        }
        Ok(answer)
    }
}

/// Pins one database by itself, as soon as it can be had.
fn pin_alone(database: &mut Database, within: Duration) -> Result<(), Trouble> {
    let deadline = Instant::now() + within;
    loop {
        let held = match database.mode() {
            Mode::Rollback => database.hold(),
            Mode::Wal | Mode::Plain => Ok(()),
        };
        match held.and_then(|()| database.pin()) {
            Err(Trouble::Busy(why)) => {
                database.let_go();
                if Instant::now() > deadline {
                    return Err(Trouble::Failed(format!("it was locked by others for {} s: {why}", within.as_secs())));
                }
                thread::sleep(PAUSE);
            }
            Err(trouble) => {
                database.let_go();
                return Err(trouble);
            }
            Ok(()) => return Ok(()),
        }
    }
}

impl From<Trouble> for Answer {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Busy(why) => Self::Busy(why),
            Trouble::Failed(why) => Self::Failed { why, full: false },
            Trouble::Full => Self::Failed { why: "the disk of the copy is full".to_owned(), full: true },
        }
    }
}

/// A path as [`crate::entry::escape`] writes it.
pub(super) fn path_of(text: &str) -> PathBuf {
    Path::new(platform::tree::name(&unescape(text).unwrap_or_default())).to_owned()
}

/// Ends the process after a time, unless it is set anew.
struct Timer(Sender<Option<Duration>>);

impl Timer {
    fn start(end: impl Fn() + Send + 'static) -> Self {
        let (sender, settings) = channel();
        thread::spawn(move || run_timer(&settings, end));
        Self(sender)
    }

    fn set(&self, after: Option<Duration>) {
        // The thread lives as long as this.
        let _sent = self.0.send(after);
    }
}

fn run_timer(settings: &Receiver<Option<Duration>>, end: impl Fn()) {
    let mut next = settings.recv().ok();
    while let Some(after) = next {
        next = match after {
            None => settings.recv().ok(),
            Some(after) => match settings.recv_timeout(after) {
                Ok(after) => Some(after),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => return end(),
            },
        };
    }
}
