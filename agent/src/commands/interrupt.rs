//! SIGINT and SIGTERM: the first asks the run to stop where it can be resumed, the second ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::output::say;
use crate::failure::{Failure, Kind};
use crate::platform;
use crate::progress::{Progress, Stage};
use crate::upload::Interrupt;

/// The longest that a run may take to stop. Ending it at any moment is safe; this is for what would only be sent again.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Becomes true when somebody asks to stop.
///
/// Signals are answered by a thread of their own, which nothing that the run does can hold up.
pub(super) fn watch(progress: &Arc<Progress>) -> Result<Interrupt, Failure> {
    let (runtime, mut signals) = signals()?;
    let (sender, receiver) = watch::channel(false);
    let progress = Arc::clone(progress);
    let answer = move || {
        runtime.block_on(async move {
            next(&mut signals).await;
            // Half a copy is of no use, and the next run removes it.
            if progress.snapshot().stage == Stage::Capturing {
                say("Stopped. What was copied so far is given up; the next run makes a new copy.");
            } else {
                say("Stopping where the next run can go on. Once more stops at once.");
                sender.send_replace(true);
                tokio::time::timeout(STOP_LIMIT, next(&mut signals)).await.ok();
            }
            // The programs of sources would go on for nobody.
            platform::process::end_groups();
            std::process::exit(Kind::Interrupted.code().into());
        });
    };
    spawn(answer)?;
    Ok(receiver)
}

/// Ends this process at the first such signal, after saying what `told` gives: for what may be ended at any moment and is begun
/// anew by the next run.
pub(super) fn end(told: impl Fn() -> String + Send + 'static) -> Result<(), Failure> {
    let (runtime, mut signals) = signals()?;
    spawn(move || {
        runtime.block_on(async move {
            next(&mut signals).await;
            say(&told());
            platform::process::end_groups();
            std::process::exit(Kind::Interrupted.code().into());
        });
    })
}

/// Calls `tell` at each such signal.
pub(super) fn each(tell: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let (runtime, mut signals) = signals()?;
    spawn(move || {
        runtime.block_on(async move {
            loop {
                next(&mut signals).await;
                tell();
            }
        });
    })
}

fn signals() -> Result<(Runtime, (Signal, Signal)), Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let signals = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    Ok((runtime, signals))
}

fn spawn(answer: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(answer);
    thread.map(|_| ()).map_err(|error| Failure::new(Kind::Failed, error))
}

async fn next((interrupt, terminate): &mut (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
