//! Programs in other languages, from `interop/`: Python with pika, Node with amqplib.

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::within;

/// A running program; killed when dropped.
#[derive(Debug)]
pub struct Script {
    name: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Script {
    /// Starts `interop/<name>` in the Python at `RPC_TEST_PYTHON`; `None`, with a word on stdout, when that is not
    /// set.
    pub fn python(name: &str, arguments: &[&str]) -> Option<Self> {
        let python = variable("RPC_TEST_PYTHON")?;
        Some(Self::start(Command::new(python), name, arguments))
    }

    /// Starts `interop/node/<name>` in Node, with the packages in `RPC_TEST_NODE_PATH`; `None`, with a word on
    /// stdout, when that is not set.
    pub fn node(name: &str, arguments: &[&str]) -> Option<Self> {
        let packages = variable("RPC_TEST_NODE_PATH")?;
        let mut node = Command::new("node");
        node.env("NODE_PATH", packages);
        Some(Self::start(node, &format!("node/{name}"), arguments))
    }

    fn start(mut interpreter: Command, name: &str, arguments: &[&str]) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("interop").join(name);
        let mut child = interpreter
            .arg(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { name: name.to_owned(), child, lines }
    }

    /// The next line it prints.
    ///
    /// # Panics
    /// When none comes within 20 s, or it ends.
    pub async fn line(&mut self) -> String {
        let what = format!("{} prints a line", self.name);
        let line = within(Duration::from_secs(20), &what, self.lines.next_line());
        line.await.expect("its output is UTF-8").unwrap_or_else(|| panic!("{} ended without a line", self.name))
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Panics
    /// When it fails, or has not ended after 30 s.
    pub async fn succeeds(mut self) {
        let status = within(Duration::from_secs(30), &format!("{} ends", self.name), self.child.wait()).await;
        let status = status.expect("it is ours");
        assert!(status.success(), "{} ended with {status}; its words are above", self.name);
    }
}

fn variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name);
    if value.is_none() {
        println!("skipped: {name} is not set");
    }
    value
}
