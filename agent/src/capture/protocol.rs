//! How one instant is had: the order of things. Engines do the work, one [`Party`] each.
//!
//! The copies are of one instant if no source changed between the first and the last pin. Either nobody happened to
//! commit, which versions read before and after the pins prove, or writers are held for the time of the pins. One party
//! needs no hold: whatever all others show at the moment of its pin, they show at theirs, whether these come before it or
//! after it. That is the pivot.
//!
//! Nothing is waited for while something is held: a party that cannot be held at once makes all others let go. Those that
//! wait for open transactions are held first and those that wait only for commits under way after them, because a writer
//! may hold the first kind while it commits in the second. Programs come in between: a try that finds a transaction open
//! has not begun any, and what they wait for is not kept waiting by us.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::settings::CutSettings;
use crate::clock;
use crate::generation::{Cut, CutMethod};

/// One engine's part in the cut: all databases that are held and pinned together.
pub(super) trait Party {
    /// When it is held and pinned.
    fn order(&self) -> Order;

    /// How many sources it stands for.
    fn members(&self) -> usize;

    /// Whether its pins hold nobody.
    fn pins_freely(&self) -> bool;

    /// Whether it is pinned as a whole in one act, so that it is of one instant by itself.
    fn has_one_pin(&self) -> bool {
        true
    }

    /// Whether it can do more for the copy while it is held, so that a hold is tried even where it is not needed.
    fn gains_by_hold(&self) -> bool {
        false
    }

    /// Whether [`Party::versions`] shows everything that becomes visible; if not, it is held in every try.
    fn has_versions(&self) -> bool {
        true
    }

    /// Does what may take its time, before anything is held: each try begins with it.
    fn ready(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// A text that is the same twice only if nothing became visible in between. Asked only if there is such a thing.
    fn versions(&mut self) -> Result<String, Refusal>;

    /// Keeps its writers waiting from now on, for not much longer than `left`. On failure nothing is held.
    fn hold(&mut self, left: Duration) -> Result<(), Refusal>;

    /// Pins what is committed now.
    fn pin(&mut self) -> Result<(), Refusal>;

    /// Whether its copies begin with its pin, and keep the machine busy.
    fn copies_at_once(&self) -> bool {
        false
    }

    /// Proves that its writers have been kept waiting from [`Party::hold`] to now.
    fn prove(&mut self) -> Result<(), Refusal>;

    /// Lets writers go on; the pins stay.
    fn release(&mut self) -> Result<(), Refusal>;

    /// Does, when all have been released, what is left to do for the copies and nobody has to be held for.
    fn settle(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Lets everything go, whatever it takes.
    fn let_go(&mut self);
}

/// The order in which parties are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Its hold waits for open transactions.
    Transactions,
    /// Its hold is a program's, which takes its time.
    Programs,
    /// Its hold waits only for commits under way.
    Commits,
    /// It has no hold: the one instant of its pin is the cut.
    Pivot,
}

/// Why a party did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not now.
    Busy(String),
    /// Not in this run.
    Never(String),
}

/// Time, as the protocol sees it.
pub(super) trait Time {
    /// Time passed, from any beginning; not set back.
    fn passed(&self) -> Duration;
    /// The time of day.
    fn wall(&self) -> Timestamp;
    /// Waits.
    fn wait(&self, time: Duration);
    /// A number between 0 and 1, to keep two that wait out of step.
    fn chance(&self) -> f64;
}

/// Time as it is.
#[derive(Debug)]
pub(super) struct RealTime(Instant);

impl RealTime {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Time for RealTime {
    fn passed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> Timestamp {
        clock::now()
    }

    fn wait(&self, time: Duration) {
        thread::sleep(time);
    }

    fn chance(&self) -> f64 {
        // The low digits of the time are chance enough to keep two apart.
        f64::from(self.0.elapsed().subsec_nanos() % 1000) / 1000.0
    }
}

/// Pauses after tries that failed: from, factor, to.
const BACKOFF: (Duration, f64, Duration) = (Duration::from_millis(20), 1.6, Duration::from_secs(1));

/// The pause after a hold that was not had, with nothing else held.
const SOON: Duration = Duration::from_millis(1);

/// Failed tries that are told one by one.
const TOLD: usize = 20;

/// Pins all `parties` at one instant. Without one, the result's method is [`CutMethod::None`] and nothing is pinned.
pub(super) fn cut(parties: &mut [&mut dyn Party], settings: &CutSettings, time: &impl Time) -> Cut {
    parties.sort_by_key(|party| party.order());
    let mut tries = Tries { count: 0, failed: Vec::new() };
    let members: usize = parties.iter().map(|party| party.members()).sum();
    let freely = parties.iter().all(|party| party.pins_freely());
    let in_one = parties.iter().all(|party| party.has_one_pin());
    let (mut method, window) = match members {
        0 => (CutMethod::Single, Ok((time.wall(), time.wall()))),
        1 if freely && in_one => {
            let gains = parties.iter().any(|party| party.gains_by_hold());
            let held = gains.then(|| optimistic(parties, settings, time, &mut tries)).flatten();
            (CutMethod::Single, held.map_or_else(|| single(parties, settings, time, &mut tries), Ok))
        }
        _ => match freely.then(|| optimistic(parties, settings, time, &mut tries)).flatten() {
            Some(window) => (CutMethod::Optimistic, Ok(window)),
            None => (CutMethod::Barrier, barrier(parties, settings, time, &mut tries)),
        },
    };
    if members == 1 {
        method = CutMethod::Single;
    }
    let (not_before, not_after) = window.unwrap_or_else(|()| {
        method = CutMethod::None;
        (time.wall(), time.wall())
    });
    Cut { method, not_before, not_after, tries: tries.count, failed_tries: tries.failed, held_us_max: 0 }
}

type Window = (Timestamp, Timestamp);

/// A time that has begun: when by the time of day, and by the clock that nobody sets.
struct Begun(Timestamp, Duration);

impl Begun {
    fn now(time: &impl Time) -> Self {
        Self(time.wall(), time.passed())
    }

    /// From then to now, which is as long as it was, also if somebody has set the time of day meanwhile.
    fn to_now(&self, time: &impl Time) -> Window {
        let Self(wall, passed) = *self;
        (wall, wall.checked_add(time.passed() - passed).unwrap_or(wall))
    }
}

struct Tries {
    count: u32,
    failed: Vec<String>,
}

impl Tries {
    fn failed(&mut self, why: String) {
        if self.failed.len() < TOLD && self.failed.last() != Some(&why) {
            self.failed.push(why);
        }
    }
}

/// One source is of one instant by itself.
fn single(
    parties: &mut [&mut dyn Party],
    settings: &CutSettings,
    time: &impl Time,
    tries: &mut Tries,
) -> Result<Window, ()> {
    let end = time.passed() + settings.barrier_within;
    loop {
        tries.count += 1;
        let tried = ready(parties);
        let begun = Begun::now(time);
        match tried.and_then(|()| pin(parties)) {
            Ok(()) => return Ok(begun.to_now(time)),
            Err(Refusal::Never(why)) => {
                tries.failed(why);
                return Err(());
            }
            Err(Refusal::Busy(why)) => tries.failed(why),
        }
        if time.passed() > end {
            return Err(());
        }
        time.wait(SOON);
    }
}

/// Tries that hold only those whose commits nothing else would show.
const TRIES_HOLDING: u32 = 3;

/// Pins, and looks whether nobody committed meanwhile.
fn optimistic(
    parties: &mut [&mut dyn Party],
    settings: &CutSettings,
    time: &impl Time,
    tries: &mut Tries,
) -> Option<Window> {
    let nobody_held = parties.iter().all(|party| party.has_versions());
    let most = if nobody_held { settings.optimistic_tries } else { settings.optimistic_tries.min(TRIES_HOLDING) };
    for _ in 0..most {
        tries.count += 1;
        match attempt(parties, Held::Some, settings, time) {
            Ok(window) => return Some(window),
            Err(Failed { refusal: Refusal::Never(why), .. }) => {
                tries.failed(why);
                return None;
            }
            Err(Failed { refusal: Refusal::Busy(why), .. }) => tries.failed(why),
        }
        time.wait(Duration::from_millis(2) + Duration::from_millis(8).mul_f64(time.chance()));
    }
    None
}

fn ready(parties: &mut [&mut dyn Party]) -> Result<(), Refusal> {
    parties.iter_mut().try_for_each(|party| party.ready())
}

/// Pins all, or none.
fn pin(parties: &mut [&mut dyn Party]) -> Result<(), Refusal> {
    let pinned = pin_all(parties).and_then(|()| parties.iter_mut().try_for_each(|party| party.settle()));
    if pinned.is_err() {
        let_go(parties);
    }
    pinned
}

/// Where in the time of the holds a pin falls makes no difference to what it shows, so those come last that would keep the
/// others from being quick.
fn pin_all(parties: &mut [&mut dyn Party]) -> Result<(), Refusal> {
    let (later, first): (Vec<_>, Vec<_>) = parties.iter_mut().partition(|party| party.copies_at_once());
    first.into_iter().chain(later).try_for_each(|party| party.pin())
}

fn let_go(parties: &mut [&mut dyn Party]) {
    for party in parties {
        party.let_go();
    }
}

/// Holds, pins, proves, releases.
fn barrier(
    parties: &mut [&mut dyn Party],
    settings: &CutSettings,
    time: &impl Time,
    tries: &mut Tries,
) -> Result<Window, ()> {
    let end = time.passed() + settings.barrier_within;
    let (mut pause, factor, longest) = BACKOFF;
    loop {
        tries.count += 1;
        let waits = match attempt(parties, Held::All, settings, time) {
            Ok(window) => return Ok(window),
            Err(Failed { refusal: Refusal::Never(why), .. }) => {
                tries.failed(why);
                return Err(());
            }
            Err(Failed { refusal: Refusal::Busy(why), held }) => {
                tries.failed(why);
                if held {
                    let waits = pause.mul_f64(0.5 + time.chance());
                    pause = pause.mul_f64(factor).min(longest);
                    waits
                } else {
                    SOON
                }
            }
        };
        if time.passed() + waits > end {
            return Err(());
        }
        time.wait(waits);
    }
}

/// Why a try failed, and whether anybody was held for it.
struct Failed {
    refusal: Refusal,
    held: bool,
}

/// Who is held in a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Everybody.
    All,
    /// Those without versions; the others must not have changed.
    Some,
}

impl Held {
    fn has(self, party: &dyn Party) -> bool {
        self == Self::All || !party.has_versions()
    }
}

/// One try: hold, versions, pins, versions, proof, release. If it fails, nothing is held or pinned.
fn attempt(
    parties: &mut [&mut dyn Party],
    who: Held,
    settings: &CutSettings,
    time: &impl Time,
) -> Result<Window, Failed> {
    ready(parties).map_err(|refusal| Failed { refusal, held: false })?;
    let begin = time.passed();
    let left = || settings.hold_limit.saturating_sub(time.passed() - begin);
    let mut held = false;
    let hold = parties.iter_mut().filter(|party| who.has(&***party)).try_for_each(|party| {
        party.hold(left())?;
        held = true;
        Ok(())
    });
    let tried = hold.and_then(|()| {
        let before = versions(parties, who)?;
        let begun = Begun::now(time);
        pin_all(parties)?;
        let window = begun.to_now(time);
        if versions(parties, who)? != before {
            return Err(Refusal::Busy("something was committed while the sources were pinned".to_owned()));
        }
        parties.iter_mut().filter(|party| who.has(&***party)).try_for_each(|party| party.prove())?;
        if held && left().is_zero() {
            let limit = settings.hold_limit.as_millis();
            return Err(Refusal::Busy(format!("the pins took longer than the {limit} ms that writers may be held")));
        }
        parties.iter_mut().filter(|party| who.has(&***party)).try_for_each(|party| party.release())?;
        parties.iter_mut().try_for_each(|party| party.settle())?;
        Ok(window)
    });
    tried.map_err(|refusal| {
        let_go(parties);
        Failed { refusal, held }
    })
}

/// What shows whether those have changed that are not held.
fn versions(parties: &mut [&mut dyn Party], who: Held) -> Result<Vec<String>, Refusal> {
    parties.iter_mut().filter(|party| !who.has(&***party)).map(|party| party.versions()).collect()
}

#[cfg(test)]
mod tests;
