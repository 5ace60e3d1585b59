//! Engines that have a way of their own to keep writers waiting: a program that holds them, and one that lets them go on.
//!
//! The holder runs both, so that writers are let go whatever becomes of the agent: when the time is over, when nobody talks
//! to the holder any more, and when it is asked to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::serve::path_of;
use crate::capture::command::{self, Holding};
use crate::capture::settings::{CommandHold, CommandSource, EnvValue, Output};
use crate::entry::escape;
use crate::platform::process;

/// The programs, and what they are run with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::capture) struct FreezeAsk {
    hold: Vec<String>,
    release: Vec<String>,
    /// Where they are run, as [`escape`] writes it.
    folder: String,
    env: BTreeMap<String, Passed>,
    /// Writers are let go after this long, in microseconds.
    pub(super) limit_us: u64,
}

/// The value of an environment variable on its way to the holder.
#[derive(Clone, Serialize, Deserialize)]
struct Passed {
    text: String,
    secret: bool,
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { "***" } else { &self.text })
    }
}

impl FreezeAsk {
    /// To be run in `folder`.
    pub(in crate::capture) fn new(
        source: &CommandSource,
        programs: &CommandHold,
        folder: &std::path::Path,
        limit_us: u64,
    ) -> Self {
        let passed = |value: &EnvValue| match value {
            EnvValue::Plain(text) => Passed { text: text.clone(), secret: false },
            EnvValue::Secret(text) => Passed { text: text.expose_secret().to_owned(), secret: true },
        };
        Self {
            hold: programs.hold.clone(),
            release: programs.release.clone(),
            folder: escape(folder.as_os_str().as_encoded_bytes()),
            env: source.env.iter().map(|(name, value)| (name.clone(), passed(value))).collect(),
            limit_us,
        }
    }

    fn release(&self) -> Release {
        let value = |Passed { text, secret }: &Passed| match secret {
            true => EnvValue::Secret(text.clone().into()),
            false => EnvValue::Plain(text.clone()),
        };
        let programs = CommandHold { hold: self.hold.clone(), release: self.release.clone() };
        let source = CommandSource {
            command: Vec::new(),
            output: Output::Folder,
            env: self.env.iter().map(|(name, passed)| (name.clone(), value(passed))).collect(),
            timeout: Duration::from_micros(self.limit_us),
            check: None,
            hold: None,
        };
        Release { source, programs, folder: path_of(&self.folder), group: None, holding: None }
    }
}

/// What is held, if anything is: whoever takes it lets it go.
#[derive(Clone, Default)]
pub(super) struct Frozen(Arc<Mutex<Option<Release>>>);

struct Release {
    source: CommandSource,
    programs: CommandHold,
    folder: PathBuf,
    /// The process group of the program that holds.
    group: Option<u32>,
    /// The same, when it has ended well: it may have left something running.
    holding: Option<Holding>,
}

impl Frozen {
    /// Runs the program that holds; `begun` is told its process group. On failure writers have been let go.
    pub(super) fn freeze(&self, ask: &FreezeAsk, begun: impl FnOnce(u32)) -> Result<(), String> {
        let release = ask.release();
        let source = release.source.clone();
        let mut holding = {
            // From now on whoever ends this process lets them go.
            let mut held = self.lock();
            let holding = command::hold(&release.source, &release.programs, &release.folder)?;
            *held = Some(Release { group: Some(holding.group()), ..release });
            holding
        };
        begun(holding.group());
        holding.wait(Duration::from_micros(ask.limit_us), &source).map_err(|why| match self.thaw() {
            Some(Err(also)) => format!("{why}; {also}"),
            Some(Ok(())) | None => why,
        })?;
        match &mut *self.lock() {
            Some(release) => release.holding = Some(holding),
            None => return Err("it was let go before its time".to_owned()),
        }
        Ok(())
    }

    /// Lets them go on. Nothing if nobody is held; waits if somebody else is at it.
    pub(super) fn thaw(&self) -> Option<Result<(), String>> {
        let mut held = self.lock();
        let release = held.take()?;
        if let (Some(group), None) = (release.group, &release.holding) {
            // It is still at it, and must not hold anybody afterwards.
            process::kill_group_of(group);
        }
        let released = command::release(&release.source, &release.programs, &release.folder);
        // Only now is what the program has left running of no use any more.
        drop(release.holding);
        Some(released)
    }

    /// Whether they are held.
    pub(super) fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Release>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
