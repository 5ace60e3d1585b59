//! What the holder and its parent say to each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use jiff::SignedDuration;

use super::*;

/// Time that passes when it is waited for, and by a millisecond whenever anything is done.
#[derive(Default)]
struct FakeTime(Cell<Duration>, Cell<SignedDuration>);

impl Time for FakeTime {
    fn passed(&self) -> Duration {
        self.0.get()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.0.get() + self.1.get()
    }

    fn wait(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// A party that does as it is told, and writes down what it did.
struct Fake<'a> {
    name: &'static str,
    members: usize,
    free: bool,
    one_pin: bool,
    gains: bool,
    log: &'a RefCell<Vec<String>>,
    time: &'a FakeTime,
    /// What versions there are, one after another; the last one stays.
    versions: VecDeque<u32>,
    /// How the holds go, one after another; after that, well.
    holds: VecDeque<Refusal>,
    proofs: VecDeque<Refusal>,
    /// How long a pin takes.
    pin: Duration,
    /// What the time of day is set to meanwhile, from what it would be.
    set: SignedDuration,
    /// Whether its copies begin with its pin.
    at_once: bool,
    held: bool,
}

impl<'a> Fake<'a> {
    fn new(name: &'static str, log: &'a RefCell<Vec<String>>, time: &'a FakeTime) -> Self {
        Self {
            name,
            members: 1,
            free: true,
            one_pin: true,
            gains: false,
            log,
            time,
            versions: VecDeque::new(),
            holds: VecDeque::new(),
            proofs: VecDeque::new(),
            pin: Duration::ZERO,
            set: SignedDuration::ZERO,
            at_once: false,
            held: false,
        }
    }

    fn note(&self, what: &str) {
        self.log.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl Party for Fake<'_> {
    fn order(&self) -> Order {
        Order::Transactions
    }

    fn members(&self) -> usize {
        self.members
    }

    fn pins_freely(&self) -> bool {
        self.free
    }

    fn has_one_pin(&self) -> bool {
        self.one_pin
    }

    fn gains_by_hold(&self) -> bool {
        self.gains
    }

    fn has_versions(&self) -> bool {
        !self.versions.is_empty()
    }

    fn versions(&mut self) -> Result<String, Refusal> {
        let version = if self.versions.len() > 1 { self.versions.pop_front() } else { self.versions.front().copied() };
        Ok(format!("{version:?}"))
    }

    fn hold(&mut self, _: Duration) -> Result<(), Refusal> {
        if let Some(refusal) = self.holds.pop_front() {
            return Err(refusal);
        }
        self.note("held");
        self.held = true;
        Ok(())
    }

    fn copies_at_once(&self) -> bool {
        self.at_once
    }

    fn pin(&mut self) -> Result<(), Refusal> {
        self.note("pinned");
        self.time.1.set(self.set);
        self.time.wait(self.pin);
        Ok(())
    }

    fn prove(&mut self) -> Result<(), Refusal> {
        self.note("proved");
        self.proofs.pop_front().map_or(Ok(()), Err)
    }

    fn release(&mut self) -> Result<(), Refusal> {
        self.note("released");
        self.held = false;
        Ok(())
    }

    fn let_go(&mut self) {
        self.note("let go");
        self.held = false;
    }
}

fn busy(why: &str) -> Refusal {
    Refusal::Busy(why.to_owned())
}

#[test]
fn what_does_not_move_is_pinned_without_holding_anybody() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { versions: [1, 2, 7].into(), ..Fake::new("a", &log, &time) };
    let mut b = Fake { versions: [5].into(), ..Fake::new("b", &log, &time) };
    let cut = cut(&mut [&mut a, &mut b], &CutSettings::default(), &time);
    assert_eq!((cut.method, cut.tries), (CutMethod::Optimistic, 2));
    assert_eq!(cut.failed_tries, ["something was committed while the sources were pinned"]);
    let expected = ["a pinned", "b pinned", "a let go", "b let go", "a pinned", "b pinned"];
    assert_eq!(*log.borrow(), expected);
}

#[test]
fn what_moves_all_the_time_is_held_pinned_proved_and_released() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { versions: (0..100).collect(), ..Fake::new("a", &log, &time) };
    let settings = CutSettings { optimistic_tries: 1, ..CutSettings::default() };
    let mut b = Fake { versions: [1].into(), ..Fake::new("b", &log, &time) };
    let cut = cut(&mut [&mut a, &mut b], &settings, &time);
    assert_eq!((cut.method, cut.tries), (CutMethod::Barrier, 2));
    let expected = ["a held", "b held", "a pinned", "b pinned", "a proved", "b proved", "a released", "b released"];
    assert_eq!(log.borrow()[4..], expected);
}

#[test]
fn nothing_is_held_while_something_is_waited_for() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { free: false, ..Fake::new("a", &log, &time) };
    let mut b = Fake { holds: [busy("locked"), busy("locked")].into(), ..Fake::new("b", &log, &time) };
    let cut = cut(&mut [&mut a, &mut b], &CutSettings::default(), &time);
    assert_eq!((cut.method, cut.tries), (CutMethod::Barrier, 3));
    assert_eq!(cut.failed_tries, ["locked"]);
    assert_eq!(log.borrow()[..6], ["a held", "a let go", "b let go", "a held", "a let go", "b let go"]);
    assert!(!a.held && !b.held);
}

#[test]
fn a_hold_that_lapsed_or_lasted_too_long_is_no_cut() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let settings = CutSettings { barrier_within: Duration::from_secs(1), ..CutSettings::default() };
    let mut a = Fake { free: false, ..Fake::new("a", &log, &time) };
    let mut b = Fake { proofs: [busy("the hold had lapsed")].into(), ..Fake::new("b", &log, &time) };
    let first = cut(&mut [&mut a, &mut b], &settings, &time);
    assert_eq!((first.method, first.failed_tries), (CutMethod::Barrier, vec!["the hold had lapsed".to_owned()]));

    let mut slow = Fake { pin: settings.hold_limit, ..Fake::new("slow", &log, &time) };
    let second = cut(&mut [&mut a, &mut slow], &settings, &time);
    assert_eq!(second.method, CutMethod::None);
    assert_eq!(log.borrow().last().map(String::as_str), Some("slow let go"));
    assert!(!a.held && !slow.held);
}

#[test]
fn who_has_no_versions_is_held_while_the_others_are_not() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { versions: [1, 2, 7].into(), ..Fake::new("a", &log, &time) };
    let mut b = Fake::new("b", &log, &time);
    let both = cut(&mut [&mut a, &mut b], &CutSettings::default(), &time);
    assert_eq!((both.method, both.tries), (CutMethod::Optimistic, 2));
    let first = ["b held", "a pinned", "b pinned", "a let go", "b let go"];
    let second = ["b held", "a pinned", "b pinned", "b proved", "b released"];
    assert_eq!(*log.borrow(), [first, second].concat());

    // One that takes several pins is not of one instant by itself.
    log.borrow_mut().clear();
    b.one_pin = false;
    assert_eq!(cut(&mut [&mut b], &CutSettings::default(), &time).method, CutMethod::Single);
    assert_eq!(*log.borrow(), ["b held", "b pinned", "b proved", "b released"]);
}

#[test]
fn whoever_begins_to_copy_with_its_pin_is_pinned_last_within_the_hold_of_all() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { free: false, at_once: true, ..Fake::new("a", &log, &time) };
    let mut b = Fake::new("b", &log, &time);
    assert_eq!(cut(&mut [&mut a, &mut b], &CutSettings::default(), &time).method, CutMethod::Barrier);
    let expected = ["a held", "b held", "b pinned", "a pinned", "a proved", "b proved", "a released", "b released"];
    assert_eq!(*log.borrow(), expected);
}

#[test]
fn a_clock_that_is_set_while_writers_are_held_neither_moves_the_window_nor_the_limit() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let settings = CutSettings { barrier_within: Duration::from_secs(1), ..CutSettings::default() };
    let pin = Duration::from_millis(5);
    for set in [SignedDuration::from_hours(-1), SignedDuration::from_hours(1)] {
        let mut a = Fake { free: false, pin, set, ..Fake::new("a", &log, &time) };
        let mut b = Fake { set, ..Fake::new("b", &log, &time) };
        time.1.set(SignedDuration::ZERO);
        let now = time.wall();
        let had = cut(&mut [&mut a, &mut b], &settings, &time);
        assert_eq!((had.method, had.not_before, had.not_after), (CutMethod::Barrier, now, now + pin));
        time.1.set(SignedDuration::ZERO);
        a.pin = settings.hold_limit;
        assert_eq!(cut(&mut [&mut a, &mut b], &settings, &time).method, CutMethod::None);
    }
}

#[test]
fn who_can_never_be_held_is_not_tried_again() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut a = Fake { free: false, ..Fake::new("a", &log, &time) };
    let mut b = Fake { holds: [Refusal::Never("read-only".to_owned())].into(), ..Fake::new("b", &log, &time) };
    let cut = cut(&mut [&mut a, &mut b], &CutSettings::default(), &time);
    assert_eq!((cut.method, cut.tries, cut.failed_tries), (CutMethod::None, 1, vec!["read-only".to_owned()]));
    assert!(!a.held);
}

#[test]
fn one_source_is_of_one_instant_by_itself() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut none = Fake { members: 0, ..Fake::new("none", &log, &time) };
    assert_eq!(cut(&mut [&mut none], &CutSettings::default(), &time).method, CutMethod::Single);
    assert!(log.borrow().is_empty());
    let mut one = Fake::new("one", &log, &time);
    assert_eq!(cut(&mut [&mut one], &CutSettings::default(), &time).method, CutMethod::Single);
    let mut rollback = Fake { free: false, ..Fake::new("rollback", &log, &time) };
    assert_eq!(cut(&mut [&mut rollback], &CutSettings::default(), &time).method, CutMethod::Single);
    let all = ["one pinned", "rollback held", "rollback pinned", "rollback proved", "rollback released"];
    assert_eq!(*log.borrow(), all);
}

#[test]
fn one_source_that_gains_by_a_hold_is_held_if_that_is_to_be_had_and_pinned_alone_if_not() {
    let (log, time) = (RefCell::default(), FakeTime::default());
    let mut one = Fake { gains: true, ..Fake::new("one", &log, &time) };
    assert_eq!(cut(&mut [&mut one], &CutSettings::default(), &time).method, CutMethod::Single);
    assert_eq!(*log.borrow(), ["one held", "one pinned", "one proved", "one released"]);
    log.borrow_mut().clear();
    one.holds = (0..10).map(|_| busy("locked")).collect();
    assert_eq!(cut(&mut [&mut one], &CutSettings::default(), &time).method, CutMethod::Single);
    assert_eq!(*log.borrow(), ["one let go", "one let go", "one let go", "one pinned"]);
    assert!(!one.held);
}
