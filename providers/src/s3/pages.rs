//! Listings that come page by page.

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::S3Store;
use crate::error::{ErrorKind, Result};

/// Pages of one listing, at a thousand entries each: far beyond any honest store.
const PAGES_MAX: u32 = 20_000;

/// One page, and where the next begins.
pub(super) struct Page<T, N> {
    pub(super) items: Vec<T>,
    pub(super) next: Option<N>,
}

/// All items of all pages. A page that fails is asked for again when the stream is polled on; a listing that runs in a
/// circle or has no end is refused.
pub(super) fn pages<'a, T, N, F>(
    store: &'a S3Store,
    operation: &'static str,
    ask: impl Fn(Option<N>) -> F + Send + 'a,
) -> BoxStream<'a, Result<T>>
where
    T: Send + 'a,
    N: Clone + PartialEq + Send + 'a,
    F: Future<Output = Result<Page<T, N>>> + Send + 'a,
{
    let start = Some((None, 0, ask));
    stream::unfold(start, move |state| async move {
        let (token, asked, ask) = state?;
        let page = match ask(token.clone()).await {
            Ok(page) => page,
            Err(error) => return Some((vec![Err(error)], Some((token, asked, ask)))),
        };
        let mut items: Vec<_> = page.items.into_iter().map(Ok).collect();
        let state = match page.next {
            None => None,
            next if next == token || asked >= PAGES_MAX => {
                items.push(Err(store.error(ErrorKind::Protocol, operation).because("the listing has no end")));
                None
            }
            next => Some((next, asked + 1, ask)),
        };
        Some((items, state))
    })
    .flat_map(stream::iter)
    .boxed()
}
