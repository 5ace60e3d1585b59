//! Folders that are copied from a snapshot of their file system, which is taken while the databases are held.
//!
//! A snapshot holds nobody, takes milliseconds, and shows the one moment at which it was taken; but nothing tells whether a
//! file was written before or after it. So it is the pivot: it is pinned last, and everything else proved not to have
//! changed since. It is copied at leisure, and then removed. All folders have to lie in one subvolume, since two
//! snapshots would be of two moments.

mod btrfs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::folder::{Frozen, Surroundings};
use super::leisure::copy_folder;
use super::problems::Problems;
use super::settings::{CutSettings, FolderSource, SourceConfig, SourceKind};
use super::{CaptureError, Copies, Event, empty_record};
use crate::clock;
use crate::generation::{Role, SourceRecord};
use crate::ids::{SiteName, SourceName};
use crate::platform;
use crate::platform::subvolume::Subvolume;
use crate::staging::Draft;

use btrfs::{Place, Run};

/// What has been written before is brought to disk this often while there is no cut, so that a snapshot has little to do.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// A snapshot that nobody waits for may take so long.
const AT_LEISURE: Duration = Duration::from_secs(60);

/// After so many snapshots in a row that were not there in time no other is tried.
const LATE: u32 = 3;

/// All such folders of a capture. Dropped, no snapshot is left.
#[derive(Debug)]
pub(super) struct SnapshotSet<'a> {
    members: Vec<Member<'a>>,
    /// Where snapshots are taken. None if no folder can be had that way.
    place: Option<Place>,
    /// What each snapshot's name begins with.
    tag: String,
    /// How many have been begun.
    count: u32,
    limit: Duration,
    /// When one has to be there that is waited for.
    until: Instant,
    /// When files were last brought to disk.
    synced: Option<Instant>,
    /// One that was not there in time, and may come to be.
    late: Option<(Run, PathBuf)>,
    late_in_a_row: u32,
    taken: Option<Taken>,
    /// Those that are not of the cut, to be removed when nobody is held.
    aside: Vec<PathBuf>,
    /// Why one could not be removed.
    remains: Option<String>,
}

#[derive(Debug)]
struct Member<'a> {
    name: &'a SourceName,
    source: &'a FolderSource,
    /// Where the folder is in a snapshot, or why it is not.
    inside: Result<PathBuf, String>,
}

/// A snapshot.
#[derive(Debug)]
struct Taken {
    path: PathBuf,
    at: Timestamp,
    took: Duration,
}

impl<'a> SnapshotSet<'a> {
    /// Those of `sources`. What an earlier run of `site` left is removed. A folder that cannot be had in a snapshot does not
    /// keep the others from it.
    pub(super) fn open(sources: &'a [SourceConfig], site: &SiteName, draft: &Draft, cut: &CutSettings) -> Self {
        let tag = format!("{}{}", btrfs::tag(site), draft.id());
        Self::with(sources, tag, cut.hold_limit, |place| place.make().and_then(|()| place.remove_all_of(site)))
    }

    fn with(
        sources: &'a [SourceConfig],
        tag: String,
        limit: Duration,
        prepare: impl Fn(&Place) -> Result<(), String>,
    ) -> Self {
        let (mut members, mut place) = (Vec::new(), None);
        for SourceConfig { name, kind } in sources {
            let SourceKind::Folder(source) = kind else { continue };
            if source.snapshot.is_some() {
                let inside = inside(&source.path, &mut place, &prepare);
                members.push(Member { name, source, inside });
            }
        }
        let until = Instant::now();
        let (count, late_in_a_row, aside) = (0, 0, Vec::new());
        let (synced, late, taken, remains) = (None, None, None, None);
        Self { members, place, tag, count, limit, until, synced, late, late_in_a_row, taken, aside, remains }
    }

    /// How many can be had in a snapshot.
    pub(super) fn members(&self) -> usize {
        self.members.iter().filter(|member| member.inside.is_ok()).count()
    }

    /// Does what may take its time, before anybody is held.
    pub(super) fn ready(&mut self) {
        if let Some((mut run, path)) = self.late.take() {
            match run.wait(Instant::now() + AT_LEISURE) {
                None => self.give_up("the file system has not finished a snapshot for a minute"),
                Some(_) => self.remove(&path),
            }
        }
        let fresh = self.synced.is_some_and(|synced| synced.elapsed() < SYNC_EVERY);
        if let (Some(place), 1.., false) = (&self.place, self.members(), fresh) {
            // What is wrong with the disk will show.
            let _synced = platform::sync_file_system(place.root());
            self.synced = Some(Instant::now());
        }
        self.until = Instant::now() + self.limit;
    }

    /// The next one has to be there within `left`.
    pub(super) fn expect_within(&mut self, left: Duration) {
        self.until = Instant::now() + left;
    }

    /// Takes a snapshot, if one can be taken. After an error that will be the same again no folder has a place in the cut.
    pub(super) fn pin(&mut self) -> Result<(), String> {
        let Some(place) = self.place.as_ref().filter(|_| self.members() > 0) else { return Ok(()) };
        self.count += 1;
        let path = place.path(&format!("{}@{}", self.tag, self.count));
        let begin = Instant::now();
        let ended = place.take(&path).map(|mut run| (run.wait(self.until), run));
        match ended {
            Ok((Some(Ok(())), _)) => {
                self.late_in_a_row = 0;
                self.taken = Some(Taken { path, at: clock::now(), took: begin.elapsed() });
                Ok(())
            }
            Ok((Some(Err(why)), _)) | Err(why) => {
                self.give_up(&why);
                Err(why)
            }
            Ok((None, run)) => {
                self.late = Some((run, path));
                self.late_in_a_row += 1;
                let why = format!(
                    "the file system took longer for a snapshot than the {} ms that writers may be held",
                    self.limit.as_millis()
                );
                if self.late_in_a_row == LATE {
                    self.give_up(&why);
                }
                Err(why)
            }
        }
    }

    /// The snapshot is not of the cut, and another one will be taken.
    pub(super) fn set_aside(&mut self) {
        self.aside.extend(self.taken.take().map(|taken| taken.path));
    }

    /// Removes all snapshots.
    pub(super) fn let_go(&mut self) {
        self.set_aside();
        self.sweep();
    }

    fn sweep(&mut self) {
        for path in std::mem::take(&mut self.aside) {
            self.remove(&path);
        }
    }

    fn remove(&mut self, path: &Path) {
        let removed = self.place.as_ref().map_or(Ok(()), |place| place.remove(path));
        if let Err(why) = removed {
            self.remains = Some(format!("{why}; the next run tries to remove it again"));
        }
    }

    fn give_up(&mut self, why: &str) {
        for member in &mut self.members {
            if member.inside.is_ok() {
                member.inside = Err(why.to_owned());
            }
        }
    }

    /// Copies all of them from the snapshot, and removes it; those that are not in it as they are. If there was no cut, a
    /// snapshot is at least of one moment by itself.
    pub(super) fn copy(mut self, draft: &Draft, around: &Surroundings<'_>) -> Result<Copies, CaptureError> {
        self.sweep();
        let pinned = self.taken.is_some();
        if !pinned && self.members() > 0 {
            self.ready();
            self.expect_within(AT_LEISURE);
            if let Err(why) = self.pin() {
                self.give_up(&why);
            }
        }
        let mut copies = Copies::default();
        for member in &self.members {
            (around.watch)(Event::Started { source: member.name });
            let mut problems = Problems::new(member.name);
            let record = self.copy_one(member, pinned, draft, around, &mut problems)?;
            copies.records.push(record);
            copies.problems.push(problems);
            if let Err(why) = &member.inside {
                copies.flaw.get_or_insert_with(|| format!("{} could not be had in a snapshot: {why}", member.name));
            }
        }
        self.let_go();
        if let (Some(why), Some(problems)) = (self.remains.take(), copies.problems.first_mut()) {
            problems.skipped(None, why);
        }
        Ok(copies)
    }

    fn copy_one(
        &self,
        member: &Member<'_>,
        pinned: bool,
        draft: &Draft,
        around: &Surroundings<'_>,
        problems: &mut Problems,
    ) -> Result<SourceRecord, CaptureError> {
        let mut record = empty_record(member.name, "folder", clock::now());
        let frozen = match (&member.inside, &self.taken, &self.place) {
            (Ok(inside), Some(taken), Some(place)) => Some(Frozen {
                // An empty path would end it with a slash, which is another name.
                path: if inside.as_os_str().is_empty() { taken.path.clone() } else { taken.path.join(inside) },
                live: &member.source.path,
                dev: place.dev(),
                at: taken.at,
                took: taken.took,
            }),
            _ => None,
        };
        match (&frozen, &member.inside) {
            (Some(frozen), _) => {
                record.position.insert("snapshot".to_owned(), "btrfs".to_owned());
                record.position.insert("snapshot_us".to_owned(), frozen.took.as_micros().to_string());
                if pinned {
                    (record.role, record.pinned_at) = (Role::Pivot, Some(frozen.at));
                }
            }
            (None, Err(why)) => problems.skipped(None, format!("it was copied while it was in use: {why}")),
            (None, Ok(_)) => {}
        }
        copy_folder(member.source, &mut record, draft, around, frozen.as_ref(), problems)?;
        Ok(record)
    }
}

impl Drop for SnapshotSet<'_> {
    fn drop(&mut self) {
        if let Some((mut run, path)) = self.late.take()
            && run.wait(Instant::now() + AT_LEISURE).is_some()
        {
            self.remove(&path);
        }
        self.let_go();
    }
}

/// Where `folder` is in snapshots of the place, which is the one of the first folder. The error is a sentence.
fn inside(
    folder: &Path,
    place: &mut Option<Place>,
    prepare: &impl Fn(&Place) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let Subvolume { root, inside, dev } = Subvolume::of(folder).map_err(|error| error.to_string())?;
    match place {
        Some(first) if first.dev() == dev => {}
        Some(first) => {
            return Err(format!(
                "it lies in another subvolume ({}) than the first folder with `snapshot` ({}), and two snapshots are of two \
                 moments; leave `snapshot` out here, or bring both folders into one subvolume",
                root.display(),
                first.root().display()
            ));
        }
        None => {
            let new = Place::new(root, dev);
            prepare(&new)?;
            *place = Some(new);
        }
    }
    Ok(inside)
}

/// Whether each folder with `snapshot` could be had in one: a snapshot is taken and removed. Each error is one sentence.
pub(super) fn check<'a>(sources: &'a [SourceConfig], site: &SiteName) -> Vec<(&'a SourceName, String)> {
    let tag = format!("{}check-{}", btrfs::tag(site), std::process::id());
    let mut set = SnapshotSet::with(sources, tag, AT_LEISURE, Place::make);
    if set.members() > 0 {
        set.ready();
        // Why not is told of each folder.
        if let Ok(()) = set.pin() {
            set.let_go();
        }
        if let Some(why) = set.remains.take() {
            set.give_up(&why);
        }
    }
    let members = std::mem::take(&mut set.members);
    members.into_iter().filter_map(|member| Some((member.name, member.inside.err()?))).collect()
}
