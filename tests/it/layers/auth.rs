//! Tokens: sent by a client's layer, checked by a pool's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rpc_core::layer::{AuthLayer, Authenticator, BoxError, Caller, Denied, Request, Token, TokenLayer, TokenSource};
use rpc_tests::{Stage, eventually, on_both_brokers};

use super::{
    SOON,
    desk::{Clerk, changing, desk},
};

on_both_brokers!(
    a_pool_refuses_calls_without_a_good_token,
    a_refused_token_is_asked_for_again_and_its_call_runs_once,
    an_authenticator_that_hangs_refuses_at_its_limit,
);

struct User(String);

/// Knows tokens of the form `NAME-GENERATION`, and only those of the generation now.
struct Tokens {
    generation: Arc<AtomicUsize>,
}

#[async_trait]
impl Authenticator for Tokens {
    type Identity = User;

    async fn authenticate(&self, token: &str, request: &Request) -> Result<User, Denied> {
        if token == "slow" {
            std::future::pending::<()>().await;
        }
        let generation = self.generation.load(Ordering::SeqCst).to_string();
        match token.split_once('-') {
            Some(("guest", of)) if of == generation && request.method() == "tell" => {
                Err(Denied::permission_denied("guests only ask"))
            }
            Some((name, of)) if of == generation => Ok(User(name.to_owned())),
            _ => Err(Denied::unauthenticated("the token is unknown")),
        }
    }

    fn caller(&self, user: &User) -> Caller {
        Caller::new(&*user.0)
    }
}

fn tokens() -> (Tokens, Arc<AtomicUsize>) {
    let generation = Arc::<AtomicUsize>::default();
    (Tokens { generation: Arc::clone(&generation) }, generation)
}

/// Answers with the user, and with the token if it could see it.
fn whoami() -> (Clerk, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let clerk = Clerk::with(move |_, ctx| {
        counted.fetch_add(1, Ordering::SeqCst);
        let user = ctx.extensions().get::<User>().map_or_else(String::new, |user| user.0.clone());
        let token = ctx.header("authorization").map(|token| format!(" {token:?}")).unwrap_or_default();
        async move { Ok(format!("{user}{token}")) }
    });
    (clerk, count)
}

async fn a_pool_refuses_calls_without_a_good_token(stage: &Stage) {
    desk!("auth-tokens");
    let ((tokens, _), (clerk, count)) = (tokens(), whoami());
    let pool = stage.pool(DeskServer::new(clerk)).await.layer(AuthLayer::new(tokens)).start().await.unwrap();
    let plain = DeskClient::new(&stage.connect().await);
    let with = |token: &'static str| plain.layer(TokenLayer::new(Token::new(token)));
    assert_eq!(with("ada-0").plain(String::new()).await.unwrap(), "ada", "the handler sees the user, and no token");
    for client in [plain.clone(), with("ada-7"), with("")] {
        let error = client.ask(String::new()).await.unwrap_err();
        assert_eq!((error.code(), error.maybe_executed()), ("unauthenticated", false), "{error}");
    }
    // As bytes, as some languages send text; and what is neither.
    let bytes = plain.layer(changing(|request| request.set_header("authorization", &b"bob-0"[..])));
    assert_eq!(bytes.plain(String::new()).await.unwrap(), "bob");
    let number = plain.layer(changing(|request| request.set_header("authorization", 7)));
    assert_eq!(number.plain(String::new()).await.unwrap_err().code(), "unauthenticated");
    let guest = with("guest-0");
    assert_eq!(guest.plain(String::new()).await.unwrap(), "guest");
    guest.tell(String::new()).await.unwrap();
    eventually(SOON, "the note is refused", async || pool.stats().oneway_failed == 1).await;
    assert_eq!(count.load(Ordering::SeqCst), 3, "nobody else's handler ran");
    drop(pool);
    stage.raw().await.delete_queue("rpc.auth-tokens.dead").await;
}

/// Gives tokens of the generation now, each good for an hour.
struct Issuer {
    generation: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl TokenSource for Issuer {
    async fn token(&self) -> Result<Token, BoxError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let secret = format!("ada-{}", self.generation.load(Ordering::SeqCst));
        Ok(Token::new(secret).expires_in(Duration::from_secs(3_600)))
    }
}

async fn a_refused_token_is_asked_for_again_and_its_call_runs_once(stage: &Stage) {
    desk!("auth-revoked");
    let ((tokens, generation), (clerk, count)) = (tokens(), whoami());
    let _pool = stage.pool(DeskServer::new(clerk)).await.layer(AuthLayer::new(tokens)).start().await.unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let issuer = Issuer { generation: Arc::clone(&generation), asked: Arc::clone(&asked) };
    let client = DeskClient::new(&stage.connect().await).layer(TokenLayer::new(issuer));
    for _ in 0..3 {
        assert_eq!(client.ask(String::new()).await.unwrap(), "ada");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it is kept");
    generation.store(1, Ordering::SeqCst);
    assert_eq!(client.ask(String::new()).await.unwrap(), "ada", "the old token is refused, and a new one sent");
    assert_eq!((asked.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (2, 4));
}

async fn an_authenticator_that_hangs_refuses_at_its_limit(stage: &Stage) {
    desk!("auth-hangs");
    let ((tokens, _), (clerk, count)) = (tokens(), whoami());
    let layer = AuthLayer::new(tokens).header("token").limit(Duration::from_millis(100));
    let _pool = stage.pool(DeskServer::new(clerk)).await.concurrency(1).layer(layer).start().await.unwrap();
    let plain = DeskClient::new(&stage.connect().await);
    let with = |token: &'static str| plain.layer(TokenLayer::new(Token::new(token)).header("token"));
    let error = with("slow").ask(String::new()).await.unwrap_err();
    assert_eq!((error.code(), error.maybe_executed(), error.is_retryable()), ("unauthenticated", false, true));
    assert_eq!(with("ada-0").ask(String::new()).await.unwrap(), "ada", "its slot is free again");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
