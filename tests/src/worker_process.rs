//! Workers as real processes, so that they can really be killed.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{signal::signal, within};

/// A running `test_worker`; killed when dropped.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    begun: Arc<Mutex<Vec<String>>>,
    /// Reads what it prints; ends with it.
    reader: Option<JoinHandle<()>>,
}

impl WorkerProcess {
    /// Starts a `test_worker` that serves a `Probe` called `service`, and waits until it does. It answers
    /// `<name>: <question>` after `delay`, and `<name>: <question> (redelivered)` to a request that came before.
    ///
    /// # Panics
    /// When it does not serve within 20 s.
    pub async fn spawn(program: &Path, uri: &str, service: &str, name: &str, delay: Duration) -> Self {
        let delay_ms = delay.as_millis().to_string();
        Self::spawn_with(program, uri, service, name, &["--delay-ms", &delay_ms]).await
    }

    /// Starts one that begins its handlers and finishes none before [`open_gate`](Self::open_gate), one at a time.
    ///
    /// # Panics
    /// When it does not serve within 20 s.
    pub async fn spawn_gated(program: &Path, uri: &str, service: &str, name: &str) -> Self {
        Self::spawn_with(program, uri, service, name, &["--gate", "closed", "--concurrency", "1"]).await
    }

    /// Starts one that handles 32 requests at once, each for `delay`, with a store of answers in Redis whose claims last for `lease`. It
    /// prints the number of its claim with each question that it begins.
    ///
    /// # Panics
    /// When it does not serve within 20 s.
    pub async fn spawn_storing(
        program: &Path,
        [uri, service, name, redis]: [&str; 4],
        delay: Duration,
        lease: Duration,
    ) -> Self {
        let [delay_ms, lease_ms] = [delay, lease].map(|time| time.as_millis().to_string());
        let options = ["--delay-ms", &delay_ms, "--concurrency", "32", "--redis", redis, "--lease-ms", &lease_ms];
        Self::spawn_with(program, uri, service, name, &options).await
    }

    async fn spawn_with(program: &Path, uri: &str, service: &str, name: &str, options: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(["--uri", uri, "--service", service, "--name", name])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::unbounded_channel();
        let begun = Arc::new(Mutex::new(Vec::new()));
        // Bounded by what the process prints.
        let reader = std::thread::spawn({
            let begun = Arc::clone(&begun);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Some(question) = line.strip_prefix("begun ") {
                        begun.lock().expect("nobody panics while holding it").push(question.to_owned());
                    }
                    // Nobody may be waiting for lines any more; the counts still matter.
                    drop(sender.send(line));
                }
            }
        });
        let mut worker = Self { child, lines, begun, reader: Some(reader) };
        worker.prints("ready").await;
        worker
    }

    /// Waits until it has begun to handle `question`.
    ///
    /// # Panics
    /// When it does not within 20 s.
    pub async fn begins(&mut self, question: &str) {
        self.prints(&format!("begun {question}")).await;
    }

    /// How often it has begun to handle `question`, before it was killed too.
    pub fn begun(&self, question: &str) -> usize {
        let begun = self.begun.lock().expect("nobody panics while holding it");
        begun.iter().filter(|begun| *begun == question).count()
    }

    /// All that it has begun to handle, before it was killed too.
    pub fn all_begun(&self) -> Vec<String> {
        self.begun.lock().expect("nobody panics while holding it").clone()
    }

    /// Lets the handlers of a gated worker finish, from now on.
    pub fn open_gate(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"go\n").and_then(|()| stdin.flush()).expect("the worker lives");
    }

    /// Ends it with SIGKILL: no destructor runs, no frame is sent.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was running");
        // So that what it had begun is counted to the last.
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
    }

    /// Tells it to stop, with SIGTERM.
    pub fn terminate(&self) {
        signal(self.child.id(), "TERM");
    }

    /// Freezes it, with SIGSTOP: its sockets stay open.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Waits until it has ended by itself, and says whether it was content.
    ///
    /// # Panics
    /// When it does not within 20 s, or before it has printed `last_words`.
    pub async fn ends(&mut self, last_words: &str) -> bool {
        self.prints(last_words).await;
        crate::eventually(Duration::from_secs(20), "the worker ends", async || {
            self.child.try_wait().expect("it is ours").is_some()
        })
        .await;
        self.child.wait().expect("it was running").success()
    }

    async fn prints(&mut self, expected: &str) {
        within(Duration::from_secs(20), &format!("the worker prints '{expected}'"), async {
            loop {
                let line = self.lines.recv().await.expect("the worker lives");
                if line == expected {
                    return;
                }
            }
        })
        .await;
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
