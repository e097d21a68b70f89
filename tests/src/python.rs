//! Python programs with pika, from `interop/`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::within;

/// A running Python program; killed when dropped.
#[derive(Debug)]
pub struct Python {
    script: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Python {
    /// Starts `interop/<script>`; `None`, with a word on stdout, when `RPC_TEST_PYTHON` names no Python.
    #[expect(clippy::unwrap_in_result, reason = "None says skipped, and nothing else")]
    pub fn spawn(script: &str, arguments: &[&str]) -> Option<Self> {
        let Some(python) = std::env::var_os("RPC_TEST_PYTHON") else {
            println!("skipped: RPC_TEST_PYTHON is not set");
            return None;
        };
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("interop").join(script);
        let mut child = Command::new(python)
            .arg(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Some(Self { script: script.to_owned(), child, lines })
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// When none comes within 20 s, or it ends.
    pub async fn line(&mut self) -> String {
        let what = format!("{} prints a line", self.script);
        let line = within(Duration::from_secs(20), &what, self.lines.next_line());
        line.await.expect("its output is UTF-8").unwrap_or_else(|| panic!("{} ended without a line", self.script))
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Panics
    /// When it fails, or has not ended after 30 s.
    pub async fn succeeds(mut self) {
        let status = within(Duration::from_secs(30), &format!("{} ends", self.script), self.child.wait()).await;
        let status = status.expect("it is ours");
        assert!(status.success(), "{} ended with {status}; its words are above", self.script);
    }
}
