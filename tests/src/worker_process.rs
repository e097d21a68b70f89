//! Workers as real processes, so that they can really be killed.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::within;

/// A running `test_worker`; killed when dropped.
#[derive(Debug)]
pub struct WorkerProcess {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl WorkerProcess {
    /// Starts a `test_worker` that serves a `Probe` called `service`, and waits until it does. It answers
    /// `<name>: <question>` after `delay`, and `<name>: <question> (redelivered)` to a request that came before.
    ///
    /// # Panics
    /// When it does not serve within 20 s.
    pub async fn spawn(program: &Path, uri: &str, service: &str, name: &str, delay: Duration) -> Self {
        let mut child = Command::new(program)
            .args(["--uri", uri, "--service", service, "--name", name])
            .args(["--delay-ms", &delay.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::unbounded_channel();
        // Ends with the process; bounded by what it prints.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut worker = Self { child, lines };
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

    /// Ends it with SIGKILL: no destructor runs, no frame is sent.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was running");
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
