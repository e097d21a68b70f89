//! Bundled brokers as real processes, so that they can really be killed.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{signal::signal, within};

/// A running `test_broker`; killed when dropped.
#[derive(Debug)]
pub struct BrokerProcess {
    program: PathBuf,
    child: Child,
    uri: String,
}

impl BrokerProcess {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it does not listen within 20 s.
    pub async fn spawn(program: &Path) -> Self {
        let (child, uri) = start(program, "0").await.expect("the broker listens");
        Self { program: program.to_owned(), child, uri }
    }

    /// Where it listens, before and after every restart.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Stops it as it stands: its sockets stay open, and nothing reads or writes them.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was running");
    }

    /// Starts it again on its port, empty.
    ///
    /// # Panics
    /// When it does not listen within 20 s.
    pub async fn restart(&mut self) {
        let port = self.uri.rsplit(':').next().expect("a port").to_owned();
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        // A listener's port is free again at once; connections of the old process may linger for a moment.
        let restarted = async {
            loop {
                if let Some((child, _)) = start(&self.program, &port).await {
                    return child;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        self.child = within(START_LIMIT, "the broker listens again", restarted).await;
    }
}

impl Drop for BrokerProcess {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The process and its URI; `None` when it ended without listening.
async fn start(program: &Path, port: &str) -> Option<(Child, String)> {
    let mut child = Command::new(program)
        .arg(port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.take().expect("it is piped");
    let first_line = tokio::task::spawn_blocking(move || BufReader::new(stdout).lines().next());
    let line = within(START_LIMIT, "the broker prints its URI", first_line).await.expect("reading does not panic");
    match line {
        Some(Ok(line)) => Some((child, line.strip_prefix("listening on ")?.to_owned())),
        _ => {
            drop(child.kill());
            drop(child.wait());
            None
        }
    }
}

const START_LIMIT: Duration = Duration::from_secs(20);
