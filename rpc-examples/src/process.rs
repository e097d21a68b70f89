//! A program that another one starts, asks over HTTP, and stops.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::Failure;

/// A running program, whose first line says `listening on <address>`. It is killed with its last clone.
#[derive(Debug, Clone)]
pub struct Process {
    http: reqwest::Client,
    base: String,
    printed: Arc<Mutex<Vec<String>>>,
    child: Arc<Mutex<Killed>>,
}

#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts it, and waits for its first line.
    ///
    /// # Errors
    /// It does not start, or says something else.
    pub fn start(program: &mut Command) -> Result<Self, Failure> {
        let mut child = program.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take();
        let child = Arc::new(Mutex::new(Killed(child)));
        let mut lines = output.map(BufReader::new).map(BufRead::lines).into_iter().flatten();
        let first = lines.next().transpose()?.unwrap_or_default();
        let Some(address) = first.strip_prefix("listening on ") else {
            return Err(Failure::new(format!("{:?} did not start: {first}", program.get_program())));
        };
        let base = format!("http://{address}");
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&printed);
        // Ends with the program.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                lock(&kept).push(line);
            }
        });
        Ok(Self { http: reqwest::Client::builder().timeout(LIMIT).build()?, base, printed, child })
    }

    /// A client for requests to it, which wait for 20 s at most.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// How many of its lines so far have this text.
    pub fn count(&self, text: &str) -> usize {
        lock(&self.printed).iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until `/readyz` is 200.
    ///
    /// # Errors
    /// It is not within 20 s.
    pub async fn is_ready(&self) -> Result<(), Failure> {
        let is_ready = async || Ok(self.http.get(self.url("/readyz")).send().await?.status() == 200);
        eventually("the process becomes ready", is_ready).await
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// It has ended.
    pub fn terminate(&self) -> Result<(), Failure> {
        let id = lock(&self.child).0.id().to_string();
        ensure(Command::new("kill").args(["-TERM", &id]).status()?.success(), "the process can be signalled")
    }

    /// Kills it.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&self) -> Result<(), Failure> {
        let mut child = lock(&self.child);
        child.0.kill()?;
        child.0.wait()?;
        Ok(())
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// It has ended with another status than 0.
    pub fn has_exited_well(&self) -> Result<bool, Failure> {
        let status = lock(&self.child).0.try_wait()?;
        ensure(status.is_none_or(|status| status.success()), "the process drains and exits 0")?;
        Ok(status.is_some())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It exits with another status than 0, or not within 20 s.
    pub async fn exits_well(&self) -> Result<(), Failure> {
        eventually("the process drains", async || self.has_exited_well()).await
    }
}

/// Waits until it is so.
///
/// # Errors
/// It is not within 20 s, or that cannot be found out.
pub async fn eventually(expected: &str, is_so: impl AsyncFn() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    while !is_so().await? {
        ensure(begun.elapsed() < LIMIT, expected)?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// An error that names what was expected, unless it is so.
///
/// # Errors
/// It is not so.
pub fn ensure(is_so: bool, expected: &str) -> Result<(), Failure> {
    if is_so { Ok(()) } else { Err(Failure::new(format!("expected: {expected}"))) }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const LIMIT: Duration = Duration::from_secs(20);
