//! How many requests are under way at once: as many as allowed, and fewer on a line that breaks.
//!
//! A slow line that drops every few seconds lets nothing through that is sent four at a time, each at a quarter of its
//! speed. So each request that breaks takes its lane with it, down to the last one; lanes come back with success.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, ErrorKind};

/// A lane is opened again after so many requests that got through in a row.
const GOOD_FOR_ANOTHER: usize = 8;

pub(crate) struct Lanes {
    places: Semaphore,
    most: usize,
    state: Mutex<State>,
}

struct State {
    open: usize,
    good: usize,
}

impl Lanes {
    /// At most `most` at once; at least one.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(most), most, state: Mutex::new(State { open: most, good: 0 }) }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so never refused.
        self.places.acquire().await.ok()
    }

    /// Draws the conclusion from how the request with this place ended, and gives back what is left of the place.
    pub(crate) fn judge<'a>(
        &'a self,
        place: Option<SemaphorePermit<'a>>,
        failed: Option<&Error>,
    ) -> Option<SemaphorePermit<'a>> {
        let mut state = self.state();
        match failed {
            None => {
                state.good += 1;
                if state.good >= GOOD_FOR_ANOTHER && state.open < self.most {
                    (state.open, state.good) = (state.open + 1, 0);
                    self.places.add_permits(1);
                }
                place
            }
            Some(error) if error.kind == ErrorKind::Unavailable => {
                state.good = 0;
                if state.open == 1 {
                    return place;
                }
                state.open -= 1;
                tracing::debug!(open = state.open, "the line broke: fewer requests at once");
                if let Some(place) = place {
                    place.forget();
                }
                None
            }
            Some(_) => place,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lanes_close_when_requests_break_and_open_when_they_get_through() {
        let lanes = Lanes::new(4);
        let broken = Error::new(ErrorKind::Unavailable, "storing");
        for left in [3, 2, 1, 1, 1] {
            drop(lanes.judge(lanes.enter().await, Some(&broken)));
            assert_eq!(lanes.places.available_permits(), left);
        }
        // What was refused has got through.
        let refused = Error::new(ErrorKind::AlreadyExists, "storing");
        drop(lanes.judge(lanes.enter().await, Some(&refused)));
        for round in 1..=5 * GOOD_FOR_ANOTHER {
            drop(lanes.judge(lanes.enter().await, None));
            assert_eq!(lanes.places.available_permits(), (1 + round / GOOD_FOR_ANOTHER).min(4));
        }
    }
}
