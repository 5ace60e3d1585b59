//! The status for people: the verdict first, then what it rests on.

use jiff::Timestamp;

use super::{Status, Store};
use crate::commands::show;
use crate::config::Size;
use crate::probed;

impl Status {
    pub(super) fn text(&self, now: Timestamp) -> String {
        let verdict = match (self.attention.is_empty(), &self.last_run) {
            (false, _) => show::bad("NEEDS ATTENTION"),
            (true, Some(_)) => show::good("all is well"),
            (true, None) => "no backup was made on this machine yet".to_owned(),
        };
        let mut text = format!("Site {}: {verdict}\n", self.site);
        for line in &self.attention {
            text.push_str(&show::wrapped("  ! ", line));
        }
        if let Some(running) = &self.running {
            text.push_str(&format!("Running now: {}\n", running.text()));
        }
        match &self.last_run {
            Some(last) => text.push_str(&last.text(now)),
            None => text.push_str("Last run: none on this machine yet\n"),
        }
        match &self.last_drill {
            Some(last) => text.push_str(&last.text(now)),
            None => text
                .push_str("Last drill: none yet, so nothing proves that the backups can come back (`offsite drill`)\n"),
        }
        for read in &self.last_reads {
            text.push_str(&read.text(now));
        }
        match &self.schedule {
            Some(jobs) => text.push_str(&jobs.text(now)),
            None => text.push_str("Next run: none by itself, since the configuration has no [[job]]\n"),
        }
        text.push_str("In each store, the newest from this machine:\n");
        for store in &self.stores {
            text.push_str(&store.text(now));
        }
        text.push_str(&format!("  {} on this machine", show::counted(self.local_generations, "generation")));
        if let Some(free) = self.staging_free_bytes {
            text.push_str(&format!(", {} free for more", Size(free)));
        }
        text.push('\n');
        if self.spool_bytes > 0 {
            text.push_str(&format!("  {} in the spool\n", Size(self.spool_bytes)));
        }
        if !self.has_state {
            text.push_str(
                "There is no memory of runs on this machine: either there was none yet, or its state folder is lost.\n\
                 In that case the next run makes a full upload; what is stored is not harmed.\n",
            );
        }
        text
    }
}

impl Store {
    fn text(&self, now: Timestamp) -> String {
        let what = match &self.last {
            None => "nothing stored from this machine yet".to_owned(),
            Some(last) => {
                let (ago, at) = (show::ago(last.committed, now), show::minute(last.committed));
                let (grade, added) = (show::grade_word(last.grade), Size(last.added_bytes));
                format!("{ago} ({at}): {}, {grade}, {added} added", last.generation)
            }
        };
        let mut text = show::wrapped(&format!("  {:12} ", self.name), &what);
        let probe = match &self.verdict {
            Some(verdict) => format!("probed {}: {}", show::ago(verdict.at, now), probed::summary(verdict)),
            None => "never probed: `offsite check` finds out what it really does".to_owned(),
        };
        text.push_str(&show::wrapped(&format!("  {:12} ", ""), &probe));
        if let Some(rotation) = &self.rotation {
            text.push_str(&show::wrapped(&format!("  {:12} ", ""), &rotation.sentence()));
        }
        if let Some(generation) = &self.unfinished {
            let what = format!("UNFINISHED: {generation}; the next run goes on with it");
            text.push_str(&show::wrapped(&format!("  {:12} ", ""), &what));
        }
        if let Some(upload) = &self.upload {
            let (stored, sealed) = (Size(upload.stored_bytes), Size(upload.sealed_bytes));
            text.push_str(&format!("  {:12}   {stored} of the {sealed} sealed so far are there\n", ""));
        }
        text
    }
}
