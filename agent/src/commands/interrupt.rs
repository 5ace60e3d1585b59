//! SIGINT and SIGTERM: the first asks the run to stop where it can be resumed, the second ends it.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::output::say;
use crate::failure::{Failure, Kind};

/// Becomes true when somebody asks to stop.
pub(super) fn watch(runtime: &Runtime) -> Result<watch::Receiver<bool>, Failure> {
    let failed = |error| Failure::new(Kind::Failed, error);
    let _inside = runtime.enter();
    let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    runtime.spawn(async move {
        let mut signals = (interrupt, terminate);
        next(&mut signals).await;
        say("Stopping where the next run can go on. Once more stops at once.");
        sender.send_replace(true);
        next(&mut signals).await;
        std::process::exit(Kind::Interrupted.code().into());
    });
    Ok(receiver)
}

async fn next((interrupt, terminate): &mut (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
