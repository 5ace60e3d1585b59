//! The only place that tries again: by count and by time, with growing and uneven waits, as the store asks.

use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;
use tokio::time::Instant;

use crate::error::{Error, Result, Retry};
use crate::settings::Policy;

const WAIT_FIRST: Duration = Duration::from_millis(300);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The waits between the attempts at one operation.
pub(crate) struct Attempts {
    policy: Policy,
    waits: backoff::ExponentialBackoff,
    begun: Instant,
    made: u32,
}

impl Attempts {
    pub(crate) fn new(policy: &Policy) -> Self {
        let waits = ExponentialBackoffBuilder::new()
            .with_initial_interval(WAIT_FIRST)
            .with_max_interval(WAIT_MAX)
            .with_max_elapsed_time(None)
            .build();
        Self { policy: policy.clone(), waits, begun: Instant::now(), made: 1 }
    }

    /// Waits until the next attempt is due after `failed`; or gives back what to report, if there is to be none.
    pub(crate) async fn wait_after(&mut self, mut failed: Error) -> Result<()> {
        let Retry::Later { after } = failed.retry else { return Err(failed) };
        let wait = self.waits.next_backoff().unwrap_or(WAIT_MAX).max(after.unwrap_or_default());
        if self.made >= self.policy.attempts || self.begun.elapsed().saturating_add(wait) > self.policy.elapsed_max {
            failed.retry = Retry::Exhausted { attempts: self.made };
            return Err(failed);
        }
        tracing::debug!(error = %failed, attempt = self.made, wait_ms = wait.as_millis(), "trying again");
        self.made += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Forgets the failures so far, because something was achieved since.
    pub(crate) fn advanced(&mut self) {
        self.waits.reset();
        self.begun = Instant::now();
        self.made = 1;
    }

    /// Whether an earlier attempt may have taken effect without our knowing.
    pub(crate) fn is_repeated(&self) -> bool {
        self.made > 1
    }
}

/// Repeats `attempt` until it succeeds, fails for good, or has been tried enough.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(
    policy: &Policy,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let mut attempts = Attempts::new(policy);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failed) => attempts.wait_after(failed).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::ErrorKind;

    fn failure(retry: Retry) -> Error {
        Error::new(ErrorKind::Unavailable, "storing").retry(retry)
    }

    async fn tries(policy: &Policy, kind: Retry) -> (u32, Retry, Duration) {
        let count = Cell::new(0);
        let begun = Instant::now();
        let result: Result<()> = retry(policy, || {
            count.set(count.get() + 1);
            async { Err(failure(kind)) }
        })
        .await;
        (count.get(), result.unwrap_err().retry, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_after_the_count_and_says_so() {
        let policy = Policy { attempts: 4, ..Policy::default() };
        let (count, said, _) = tries(&policy, Retry::Later { after: None }).await;
        assert_eq!((count, said), (4, Retry::Exhausted { attempts: 4 }));
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_when_the_time_is_over() {
        let policy = Policy { attempts: 1000, elapsed_max: Duration::from_secs(30), ..Policy::default() };
        let (count, said, took) = tries(&policy, Retry::Later { after: None }).await;
        assert!(
            count > 2 && matches!(said, Retry::Exhausted { .. }) && took <= Duration::from_secs(30),
            "{count} {took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn waits_as_long_as_the_store_asks() {
        let policy = Policy { attempts: 2, ..Policy::default() };
        let (_, _, took) = tries(&policy, Retry::Later { after: Some(Duration::from_secs(42)) }).await;
        assert!(took >= Duration::from_secs(42), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_failure_is_not_repeated() {
        let (count, said, took) = tries(&Policy::default(), Retry::Never).await;
        assert_eq!((count, said, took), (1, Retry::Never, Duration::ZERO));
    }
}
