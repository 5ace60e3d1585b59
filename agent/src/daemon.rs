//! The daemon: does what the schedule says, when it says it.
//!
//! One loop owns everything and hears of everything else through one channel: the clock, the ends of runs, what it is told
//! over its socket, and signals. Runs are processes of this same program, so that whatever happens to one of them, the
//! next begins at its time. What has happened is on disk before anything is done about it.

mod child;
mod control;
mod listening;
mod record;
mod tidings;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::clock;
use crate::config::Span;
use crate::failure::{Kind, one_line};
use crate::ids::JobName;
use crate::platform::service::Manager;
use crate::schedule::{Action, EndWhy, Event, Job, Memory, Schedule, SkipWhy, Why};
use crate::staging::{FolderLock, StagingError};

use child::Child;
pub use control::{Answer, AskError, Request, ask};
pub(crate) use listening::read_until;
pub use record::{RecordError, read as read_memory};
use tidings::Tidings;

/// Where the daemon keeps what it remembers, and its socket, below the state folder.
const FOLDER: &str = "daemon";

/// What a daemon is made of.
#[derive(Clone, Debug)]
pub struct DaemonSettings {
    /// What it does.
    pub schedule: Schedule,
    /// The folder that holds what it remembers is made in this one.
    pub state_folder: PathBuf,
    /// What runs are processes of.
    pub program: PathBuf,
    /// The configuration of the runs.
    pub config: PathBuf,
    /// Hears of runs that were refused.
    pub refused: Sender<Refused>,
}

/// A run that ended because its command line or its configuration is wrong (exit code 2): there may have been nothing that it
/// could tell of that with.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Whose run.
    pub job: JobName,
    /// When it began.
    pub began: Timestamp,
    /// Why, as it printed it.
    pub messages: Vec<String>,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its folder cannot be used, or another daemon holds it.
    #[error(transparent)]
    Folder(#[from] StagingError),
    /// What it remembers cannot be read or kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It cannot be told anything.
    #[error("the daemon cannot listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        #[source]
        /// The cause.
        source: io::Error,
    },
}

/// Asks the daemon to end; a second time, at once.
#[derive(Clone, Debug)]
pub struct Stopper(Sender<Message>);

impl Stopper {
    /// Asks.
    pub fn stop(&self) {
        // Without a loop there is nothing to stop.
        self.0.send(Message::Stop).ok();
    }
}

enum Message {
    /// A run has ended. Its process still has its number.
    Ended { job: JobName, printed: Vec<u8> },
    /// Somebody asks; the answer goes back.
    Asked { request: Request, answer: Sender<Answer> },
    /// The daemon is to end.
    Stop,
}

/// The daemon itself.
pub struct Daemon {
    settings: DaemonSettings,
    record: PathBuf,
    _lock: FolderLock,
    memory: Memory,
    children: BTreeMap<JobName, Child>,
    manager: Manager,
    inbox: Receiver<Message>,
    outbox: Sender<Message>,
    since: Timestamp,
    /// The two clocks at the last look.
    clocks: (Timestamp, Instant),
    tidings: Tidings,
}

/// The clock is looked at so often, whatever the schedule says: it may have been set.
const LOOK: Duration = Duration::from_secs(60);
/// A difference between two clocks that is worth a word.
const JUMP: SignedDuration = SignedDuration::from_secs(120);

impl Daemon {
    /// Takes the place of the site's daemon: its lock, its memory, its socket.
    pub fn begin(settings: DaemonSettings) -> Result<Self, DaemonError> {
        let now = clock::now();
        let folder = settings.state_folder.join(FOLDER);
        crate::durable::create_folder(&settings.state_folder)
            .and_then(|()| crate::durable::add_folder(&folder))
            .map_err(|error| RecordError::new("make the folder", &folder, error))?;
        let lock = FolderLock::take(&folder, now)?;
        let record = record::path(&settings.state_folder);
        let mut memory = match record::read(&settings.state_folder) {
            Ok(memory) => memory.unwrap_or_else(|| Memory::new(now)),
            // Runs matter more than what is remembered of them.
            Err(error) => {
                tracing::error!("{}; every job begins anew", one_line(&error));
                Memory::new(now)
            }
        };
        settings.schedule.begin(&mut memory, now);
        let (outbox, inbox) = mpsc::channel();
        control::listen(&settings.state_folder, &outbox)?;
        let clocks = (now, Instant::now());
        let (children, manager) = (BTreeMap::new(), Manager::of_this_process());
        let tidings = Tidings::new(&settings.program, &settings.config);
        Ok(Self {
            settings,
            record,
            _lock: lock,
            memory,
            children,
            manager,
            inbox,
            outbox,
            since: now,
            clocks,
            tidings,
        })
    }

    /// What ends it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.outbox.clone())
    }

    /// Runs until it is told to end and its last run has ended.
    pub fn run(mut self) {
        tracing::info!("the schedule runs: {}", self.plan());
        self.step(Event::Clock);
        self.manager.tell("READY=1");
        loop {
            self.manager.tell(&format!("WATCHDOG=1\nSTATUS={}", self.plan()));
            let message = self.inbox.recv_timeout(self.patience());
            self.look_at_clocks();
            match message {
                Err(RecvTimeoutError::Timeout) => self.step(Event::Clock),
                // This holds a sender itself.
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Message::Ended { job, printed }) => self.ended(job, &printed),
                Ok(Message::Asked { request, answer }) => {
                    let reply = self.answer(request);
                    // Whoever asked may have gone away.
                    answer.send(reply).ok();
                }
                Ok(Message::Stop) => self.stop(),
            }
            self.children.values_mut().for_each(Child::end_if_late);
            self.tidings.look(self.memory.stopping);
            if self.memory.stopping && self.children.is_empty() {
                control::forget(&self.settings.state_folder);
                tracing::info!("the schedule has ended");
                return;
            }
        }
    }

    /// How long nothing has to be done if nothing happens.
    fn patience(&self) -> Duration {
        let now = clock::now();
        let wake = self.settings.schedule.wake(&self.memory, now).map(|at| at.duration_since(now).unsigned_abs());
        let watchdog = self.manager.watchdog().map(|limit| limit / 3);
        let kills = self.children.values().filter_map(Child::patience);
        wake.into_iter().chain(watchdog).chain(kills).chain([LOOK]).min().unwrap_or(LOOK)
    }

    /// Says so if time has not passed as it should.
    fn look_at_clocks(&mut self) {
        let (now, moment) = (clock::now(), Instant::now());
        let (wall, steady) = std::mem::replace(&mut self.clocks, (now, moment));
        let passed = SignedDuration::try_from(moment.duration_since(steady)).unwrap_or(SignedDuration::MAX);
        let jump = now.duration_since(wall) - passed;
        if jump > JUMP {
            tracing::warn!("this machine slept, or its clock was set ahead: {} are missing", Span(jump.unsigned_abs()));
        } else if jump < -JUMP {
            tracing::warn!("the clock of this machine was set back by {}", Span(jump.unsigned_abs()));
        }
    }

    /// Takes `event` into memory, writes it down, and does what follows from it.
    fn step(&mut self, event: Event) {
        let now = clock::now();
        let before = self.memory.clone();
        let actions = self.settings.schedule.step(&mut self.memory, event, now);
        if before != (Memory { seen: before.seen, ..self.memory.clone() })
            && let Err(error) = record::write(&self.record, &self.memory)
        {
            // A full disk must not keep runs from beginning: they say best what is wrong.
            tracing::error!("{}: a restart may repeat a run", one_line(&error));
        }
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { job, why } => {
                tracing::info!("{job} begins{}", reason(why));
                if let Err(error) = self.start(&job) {
                    tracing::error!("{job} cannot be started: {error}");
                    self.step(Event::Ended { job, exit_code: None, messages: vec![error.to_string()] });
                }
            }
            Action::End { job, why } => {
                tracing::warn!(
                    "{job} is stopped{}",
                    match why {
                        EndWhy::Deadline => ": it is not done by its deadline; the next run goes on from here",
                        EndWhy::Stop => "",
                    }
                );
                if let Some(child) = self.children.get_mut(&job) {
                    child.stop();
                }
            }
            Action::Skip { job, why, .. } => {
                tracing::warn!(
                    "{job} is left out: {}",
                    match why {
                        SkipWhy::Missed => "its time passed while this machine was off or asleep",
                        SkipWhy::Overlapped => "the run before it still goes on",
                        SkipWhy::Deadline => "it could not begin before its deadline",
                    }
                );
            }
            Action::Late { job, .. } => tracing::warn!("{job} is not done by its deadline, and goes on"),
        }
    }

    fn start(&mut self, name: &JobName) -> io::Result<()> {
        let job = self.settings.schedule.jobs.iter().find(|job| job.name == *name);
        let Some(job) = job else { return Err(io::ErrorKind::NotFound.into()) };
        let (program, config) = (&self.settings.program, job.config.as_ref().unwrap_or(&self.settings.config));
        let child = Child::start(program, config, &job.run, name, &self.outbox)?;
        self.children.insert(name.clone(), child);
        Ok(())
    }

    fn ended(&mut self, job: JobName, printed: &[u8]) {
        let exit_code = self.children.remove(&job).and_then(Child::exit_code);
        let messages = child::messages(printed);
        match exit_code {
            Some(0) => tracing::info!("{job} is done"),
            Some(code) => tracing::warn!("{job} ended with exit code {code}{}", said(&messages)),
            None => tracing::error!("{job} was killed"),
        }
        if exit_code == Some(Kind::Usage.code()) {
            let running = self.memory.job(&job).and_then(|known| known.running);
            let began = running.map_or_else(clock::now, |running| running.started);
            // Where nobody listens, the log has it.
            self.settings.refused.send(Refused { job: job.clone(), began, messages: messages.clone() }).ok();
        }
        self.step(Event::Ended { job, exit_code, messages });
    }

    fn stop(&mut self) {
        if self.memory.stopping {
            // Asked again: so are the runs, which then end at once.
            self.children.values_mut().for_each(Child::stop);
            return;
        }
        self.manager.tell("STOPPING=1");
        self.step(Event::Stop);
    }

    fn answer(&mut self, request: Request) -> Answer {
        let event = match request {
            Request::Status => None,
            Request::Pause { until } => Some(Event::Pause(until)),
            Request::Resume => Some(Event::Resume),
            Request::Run { job } => match self.memory.job(&job) {
                None => {
                    let names: Vec<&str> = self.settings.schedule.jobs.iter().map(|job| job.name.as_str()).collect();
                    return Answer::Refused(format!("there is no job {job}; there are: {}", names.join(", ")));
                }
                Some(known) if known.running.is_some() => return Answer::Refused(format!("{job} runs already")),
                Some(_) => Some(Event::RunNow(job)),
            },
        };
        if let Some(event) = event {
            match &event {
                Event::Pause(until) => tracing::info!("told to pause until {until:.0}"),
                Event::Resume => tracing::info!("told to go on"),
                // That it begins is said when it does.
                _ => {}
            }
            self.step(event);
        }
        let (schedule, now) = (&self.settings.schedule, clock::now());
        let next = |job: &Job| (job.name.clone(), schedule.next_run(job, &self.memory, now));
        Answer::Status {
            pid: std::process::id(),
            since: self.since,
            memory: self.memory.clone(),
            next: schedule.jobs.iter().map(next).collect(),
        }
    }

    /// What goes on or comes next, in one line.
    fn plan(&self) -> String {
        let running: Vec<&str> = self.children.keys().map(JobName::as_str).collect();
        if !running.is_empty() {
            return format!("running {}", running.join(", "));
        }
        let (schedule, now) = (&self.settings.schedule, clock::now());
        let next = schedule.jobs.iter().filter_map(|job| Some((schedule.next_run(job, &self.memory, now)?, &job.name)));
        match next.min() {
            Some((at, job)) => {
                let at = at.to_zoned(schedule.calendar.zone().clone());
                format!("next is {job}, {}", at.strftime("%a %Y-%m-%d %H:%M:%S %Z"))
            }
            None => "nothing is to come".to_owned(),
        }
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Scheduled => "",
        Why::CaughtUp => ": its time passed while this machine was off or asleep",
        Why::Overlapped => ": its time passed while the run before it went on",
        Why::Interrupted => " again: it was interrupted",
        Why::Locked => " again: another run was under way",
        Why::Asked => ": somebody asked for it",
    }
}

fn said(messages: &[String]) -> String {
    if messages.is_empty() { String::new() } else { format!(": {}", messages.join(": ")) }
}

/// The folder of the daemon of the site with this state folder.
fn folder(state_folder: &Path) -> PathBuf {
    state_folder.join(FOLDER)
}
