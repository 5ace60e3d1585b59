//! Runs that could not begin, since their configuration was spoiled while the daemon ran: the daemon, which read a good one,
//! tells of them in their place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use crate::clock;
use crate::commands::backup::LastRun;
use crate::commands::output::{messages, say};
use crate::commands::{evidence, load_config};
use crate::config::Place;
use crate::daemon::Refused;
use crate::evidence::{Drill, Record, Run};
use crate::failure::{Failure, Kind};
use crate::ids::JobName;

/// What tells of the runs of each job.
pub(super) struct Jobs(BTreeMap<JobName, Job>);

struct Job {
    verb: String,
    config: PathBuf,
    /// As it was when the daemon began.
    place: Place,
}

impl Jobs {
    /// Those of `place`, whose configuration is at `path`. Configurations of their own have to be good now.
    pub(super) fn of(place: &Place, path: &Path) -> Result<Self, Failure> {
        let mut jobs = BTreeMap::new();
        for job in &place.schedule.jobs {
            let (config, place) = match &job.config {
                Some(other) => (other.clone(), load_config(other)?.place),
                None => (path.to_owned(), place.clone()),
            };
            let verb = job.run.first().cloned().unwrap_or_default();
            jobs.insert(job.name.clone(), Job { verb, config, place });
        }
        Ok(Self(jobs))
    }

    /// Tells of each run that did not tell of itself, until the daemon ends.
    pub(super) fn tell(&self, inbox: &Receiver<Refused>) {
        for refused in inbox {
            if let Some(job) = self.0.get(&refused.job) {
                job.tell(&refused);
            }
        }
    }
}

impl Job {
    fn tell(&self, refused: &Refused) {
        let place = &self.place;
        let tells_of_this = |record: &Record| match record {
            Record::Run(_) => self.verb == "backup",
            Record::Drill(_) => self.verb == "drill",
            _ => false,
        };
        let told = evidence::history(place)
            .is_ok_and(|history| history.iter().any(|entry| entry.at >= refused.began && tells_of_this(&entry.record)));
        if told {
            return;
        }
        // Everything that is wrong, unless it was mended meanwhile.
        let messages = load_config(&self.config).err().map_or_else(|| refused.messages.clone(), |now| messages(&now));
        match self.verb.as_str() {
            "backup" => {
                let config = self.config.display();
                let hint = format!("correct {config} (`offsite check` says what is wrong), then run `offsite backup`");
                let exit_code = Kind::Usage.code();
                if let Err((path, error)) = LastRun::refused(messages.clone(), clock::now()).write(&place.state) {
                    say(&format!("warning: how this run ended could not be written to {}: {error}", path.display()));
                }
                let began = Some(refused.began);
                let run = Run { began, exit_code, messages, hints: vec![hint], ..Run::default() };
                evidence::record(place, Record::Run(run));
            }
            "drill" => {
                let not_tried = Some(messages.join(": "));
                evidence::record(place, Record::Drill(Drill { not_tried, ..Drill::default() }));
            }
            // `status` tells of every other job that failed.
            _ => {}
        }
    }
}
