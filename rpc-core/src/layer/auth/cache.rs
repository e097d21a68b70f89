//! [`Cache`]: the token of a client, until it is near its end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::source::{Token, TokenSource};
use crate::{layer::response::BoxError, lock::lock};

pub(super) struct Cache {
    source: Box<dyn TokenSource>,
    /// One with an end.
    kept: Mutex<Option<Token>>,
    /// Held by the call that asks.
    asking: tokio::sync::Mutex<()>,
}

/// A token to send.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) secret: Arc<str>,
    /// Whether it was not asked for just now.
    pub(super) is_kept: bool,
}

impl Cache {
    pub(super) fn new(source: impl TokenSource) -> Self {
        Self { source: Box::new(source), kept: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// A good token. A call that finds it near its end asks for the next one; the others wait for that one only when there is none.
    pub(super) async fn token(&self, refresh_before: Duration, limit: Duration) -> Result<Current, BoxError> {
        if let Some(secret) = self.good(refresh_before) {
            return Ok(Current { secret, is_kept: true });
        }
        let asking = match self.good(Duration::ZERO) {
            Some(secret) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(Current { secret, is_kept: true }),
            },
            None => self.asking.lock().await,
        };
        // Another call may have got one meanwhile.
        if let Some(secret) = self.good(refresh_before) {
            return Ok(Current { secret, is_kept: true });
        }
        let asked = timeout(limit, self.source.token()).await;
        drop(asking);
        let failure = match asked {
            Ok(Ok(token)) => {
                let secret = Arc::clone(&token.secret);
                *lock(&self.kept) = token.expires_at.is_some().then_some(token);
                return Ok(Current { secret, is_kept: false });
            }
            Ok(Err(error)) => error,
            Err(_) => format!("the source of tokens gave none within {limit:?}").into(),
        };
        match self.good(Duration::ZERO) {
            Some(secret) => {
                tracing::warn!(error = %failure, "no new token: the last one is still good");
                Ok(Current { secret, is_kept: true })
            }
            None => Err(failure),
        }
    }

    /// The one that is kept, unless it ends within that time.
    fn good(&self, margin: Duration) -> Option<Arc<str>> {
        let kept = lock(&self.kept);
        let token = kept.as_ref()?;
        let is_good = token.expires_at.is_none_or(|end| end.saturating_duration_since(Instant::now()) > margin);
        is_good.then(|| Arc::clone(&token.secret))
    }

    /// Forgets a token that was refused.
    pub(super) fn forget(&self, secret: &Arc<str>) {
        let mut kept = lock(&self.kept);
        if kept.as_ref().is_some_and(|token| Arc::ptr_eq(&token.secret, secret)) {
            *kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::time::sleep;

    use super::*;

    const NEAR: Duration = Duration::from_secs(30);
    const LIMIT: Duration = Duration::from_secs(10);

    /// Gives tokens 1, 2, … after a while, each good for a minute; fails while it is told to.
    #[derive(Default)]
    struct Source {
        asked: Arc<AtomicUsize>,
        fails: Arc<std::sync::atomic::AtomicBool>,
        takes: Duration,
    }

    #[async_trait]
    impl TokenSource for Source {
        async fn token(&self) -> Result<Token, BoxError> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            sleep(self.takes).await;
            match self.fails.load(Ordering::SeqCst) {
                true => Err("away".into()),
                false => Ok(Token::new(number.to_string()).expires_in(Duration::from_secs(60))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_asked_for_once_and_again_before_its_end() {
        let source = Source { takes: Duration::from_secs(1), ..Source::default() };
        let asked = Arc::clone(&source.asked);
        let cache = Cache::new(source);
        let (first, second) = tokio::join!(cache.token(NEAR, LIMIT), cache.token(NEAR, LIMIT));
        assert_eq!((&*first.unwrap().secret, &*second.unwrap().secret), ("1", "1"), "the second waits for the first");
        sleep(Duration::from_secs(25)).await;
        assert_eq!(&*cache.token(NEAR, LIMIT).await.unwrap().secret, "1");
        sleep(Duration::from_secs(10)).await;
        let (first, second) = tokio::join!(cache.token(NEAR, LIMIT), cache.token(NEAR, LIMIT));
        assert_eq!((&*first.unwrap().secret, &*second.unwrap().secret), ("2", "1"), "the second does not wait");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_token_outlives_a_failure_of_its_source() {
        let source = Source::default();
        let fails = Arc::clone(&source.fails);
        let cache = Cache::new(source);
        assert!(!cache.token(NEAR, LIMIT).await.unwrap().is_kept);
        fails.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(40)).await;
        assert_eq!(&*cache.token(NEAR, LIMIT).await.unwrap().secret, "1");
        sleep(Duration::from_secs(21)).await;
        assert_eq!(cache.token(NEAR, LIMIT).await.unwrap_err().to_string(), "away");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_has_a_limit_and_a_dropped_call_leaves_the_line() {
        let source = Source { takes: Duration::from_secs(3_600), ..Source::default() };
        let cache = Cache::new(source);
        let dropped = timeout(Duration::from_secs(1), cache.token(NEAR, LIMIT)).await;
        assert!(dropped.is_err());
        let error = cache.token(NEAR, LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), "the source of tokens gave none within 10s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_forgotten_and_a_newer_one_is_not() {
        let cache = Cache::new(Source::default());
        let old = cache.token(NEAR, LIMIT).await.unwrap();
        cache.forget(&old.secret);
        assert_eq!(&*cache.token(NEAR, LIMIT).await.unwrap().secret, "2");
        cache.forget(&old.secret);
        assert!(cache.token(NEAR, LIMIT).await.unwrap().is_kept);
    }

    #[test]
    fn a_token_is_not_shown() {
        let token = Token::new("hush").expires_in(Duration::MAX);
        assert!(!format!("{token:?} {:?}", crate::layer::TokenLayer::new(token.clone())).contains("hush"));
    }
}
