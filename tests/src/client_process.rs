//! A client as a real process, so that it can be frozen.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::ChildStdout,
};

use crate::{signal::signal, within};

/// A running `test_client`; killed when dropped.
#[derive(Debug)]
pub struct ClientProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ClientProcess {
    /// Starts one that calls the `Probe` called `service` again and again.
    pub fn spawn(program: &Path, uri: &str, service: &str) -> Self {
        let mut command = Command::new(program);
        let mut child = command.args([uri, service]).stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(ChildStdout::from_std(stdout).expect("a pipe")).lines();
        Self { child, lines }
    }

    /// Stops it as it stands.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// When none comes within 20 s.
    pub async fn line(&mut self) -> String {
        let line = within(Duration::from_secs(20), "the client prints a line", self.lines.next_line()).await;
        line.expect("its output is UTF-8").expect("it lives")
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
