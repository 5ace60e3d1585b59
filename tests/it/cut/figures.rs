//! What clerks had to wait for, by their own journals, in holds and as often without one.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::Duration;

use agent::capture::CutSettings;
use agent::generation::{CutMethod, Document};
use tests::clerks::{Book, Engine, Journal, Waits, Window};

/// So many windows without a hold are looked at for each with one.
const CONTROLS: usize = 10;

/// What a round showed.
pub(super) struct Round {
    pub(super) document: Document,
    /// When everybody was at work and nothing of ours was: right before the backup, and right after it.
    pub(super) quiet: [Window; 2],
    pub(super) took: Duration,
}

impl Round {
    /// When its writers were held: from the moment at which the first were, which were let go right after the pins (so this
    /// is a little too early), until the last were, whose database was copied first.
    fn hold(&self) -> Window {
        let held = |copied: bool| {
            let is_copied = |mode: Option<&String>| mode.is_some_and(|mode| mode == "rollback");
            let sources = self.document.sources.iter();
            let sources = sources.filter(|source| is_copied(source.position.get("journal_mode")) == copied);
            sources.map(|source| source.held_us.cast_signed()).max().unwrap_or(0)
        };
        let begin = self.document.cut.not_after.as_microsecond() - held(false);
        (begin, begin + held(false).max(held(true)))
    }

    /// As long a time without a hold: another one for each number.
    fn control(&self, number: usize) -> Window {
        let (from, to) = self.quiet[number % 2];
        let (begin, end) = self.hold();
        let at = from + (to - from) * (number as i64 / 2) / (CONTROLS as i64 / 2);
        (at, at + end - begin)
    }
}

/// What all rounds showed.
pub(super) struct Figures<'a> {
    pub(super) load: &'a str,
    pub(super) books: &'a [Book],
    pub(super) rounds: Vec<Round>,
    pub(super) journal: Journal,
    pub(super) seconds: f64,
}

impl Figures<'_> {
    fn rate(&self) -> f64 {
        self.journal.steps.len() as f64 / 2.0 / self.seconds
    }

    /// What `of` measures in the holds; and in as many windows of the same length without a hold: who happens to be under way
    /// at a certain time is slower than usual anyway, since slow steps are met more often than fast ones, and writers wait for each other.
    fn compare(&self, of: impl Fn(&[Window]) -> Waits) -> Compared {
        let held = of(&self.rounds.iter().map(Round::hold).collect::<Vec<_>>());
        let set = |number| of(&self.rounds.iter().map(|round| round.control(number)).collect::<Vec<_>>());
        let sets: Vec<Waits> = (0..CONTROLS).map(set).collect();
        let middle = |of: fn(&Waits) -> i64| {
            let mut all: Vec<i64> = sets.iter().map(of).collect();
            all.sort_unstable();
            all[CONTROLS / 2]
        };
        Compared { control: (middle(Waits::median_us), middle(Waits::most_us)), held }
    }

    /// How much longer than usual steps took that met a hold.
    fn steps(&self) -> Compared {
        self.compare(|windows| self.journal.longer(windows, None))
    }

    /// How long databases whose writers are held stood still. Nobody is held for the others.
    fn standstills(&self) -> Compared {
        let held = |(number, book): (usize, &Book)| (!book.is_at(Engine::Postgres)).then_some(number);
        let held: Vec<usize> = self.books.iter().enumerate().filter_map(held).collect();
        self.compare(|windows| self.journal.standstills(windows, &held))
    }

    /// How long clerks that met a hold had a step under way from its beginning on.
    fn clerks(&self) -> Compared {
        self.compare(|windows| self.journal.longest(windows))
    }

    pub(super) fn tell(&self) {
        let cuts = || self.rounds.iter().map(|round| &round.document.cut);
        let mut ours: Vec<u64> = cuts().map(|cut| cut.held_us_max / 1000).collect();
        let mut tries: Vec<u32> = cuts().map(|cut| cut.tries).collect();
        ours.sort_unstable();
        tries.sort_unstable();
        let optimistic = cuts().filter(|cut| cut.method == CutMethod::Optimistic).count();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for why in cuts().flat_map(|cut| &cut.failed_tries) {
            *reasons.entry(why.as_str()).or_default() += 1;
        }
        let longest = self.journal.steps.iter().filter(|step| !step.slow).map(|step| step.took_us).max();
        eprintln!(
            "{}: {} rounds, {:.0} pieces of business a second; databases stood still: {}; the longest step of a clerk from the \
             beginning of a hold on: {}; steps longer than usual: {}; the longest step of all took {} ms; by our own clock {ours:?} ms; tries {tries:?}, \
             {optimistic} without a barrier; {:.1} s for a backup and a restore; tries failed because {reasons:#?}",
            self.load,
            self.rounds.len(),
            self.rate(),
            self.standstills(),
            self.clerks(),
            self.steps(),
            longest.unwrap_or(0) / 1000,
            self.rounds.iter().map(|round| round.took).sum::<Duration>().as_secs_f64() / self.rounds.len() as f64
        );
        for (number, book) in self.books.iter().enumerate() {
            let steps = self.compare(|windows| self.journal.longer(windows, Some(number)));
            let still = self.compare(|windows| self.journal.standstills(windows, &[number]));
            eprintln!("  {}: steps longer than usual: {steps}; stood still: {still}", book.name);
        }
    }

    /// What is promised. A machine that has much else to do would not keep it, so it is looked at by hand.
    pub(super) fn assert_promises(&self) {
        let all = [self.standstills(), self.steps(), self.clerks()];
        let limit = i64::try_from(CutSettings::default().hold_limit.as_micros()).unwrap();
        assert!(self.rate() >= 40.0, "{}", self.rate());
        for Compared { held, control: (median, most) } in all {
            assert!(held.median_us() - median < 30_000 && held.most_us() <= limit + most);
        }
    }
}

/// What was measured in holds, and without them: median and most, each the median of so many sets of windows.
struct Compared {
    held: Waits,
    control: (i64, i64),
}

impl Display for Compared {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let ms = |us: i64| us as f64 / 1000.0;
        let Self { held, control: (median, most) } = self;
        let (count, held, worst) = (held.count(), ms(held.median_us()), ms(held.most_us()));
        write!(
            f,
            "{count}, {held:.1} ms (median), {worst:.1} ms (most), without a hold {:.1} ms, {:.1} ms",
            ms(*median),
            ms(*most)
        )
    }
}
