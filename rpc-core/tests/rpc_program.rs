//! The program `rpc broker`, from outside.

#![cfg(all(feature = "cli", feature = "lapin", unix))]
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use lapin::{
    ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use rpc_core::{Connection, ConnectionOptions, Error};
use tokio::time::timeout;

/// A running `rpc`, killed when dropped.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    /// Starts `rpc broker` in a shell, after `before`.
    fn start(before: &str, options: &str) -> Self {
        let script = format!("{before}; exec \"$0\" --log info broker --listen 127.0.0.1:0 {options}");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_rpc")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on amqp://").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address }
    }

    /// Stops it with SIGTERM, and returns its log.
    fn stop(mut self) -> String {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success() && self.child.wait().unwrap().success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have stopped already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn few_open_files_are_raised_to_what_the_system_allows() {
    let program = Program::start("ulimit -Sn 64", "");
    let silent: Vec<_> = (0..110).map(|_| TcpStream::connect(&program.address).unwrap()).collect();
    let uri = format!("amqp://{}", program.address);
    let opening = Connection::open(&uri);
    let connection = timeout(Duration::from_secs(8), opening).await.expect("there are files left").unwrap();
    connection.close().await.unwrap();
    drop(silent);
}

#[tokio::test]
async fn where_no_more_are_allowed_the_connections_are_fewer() {
    let program = Program::start("ulimit -n 160", "");
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(&program.address)).collect();
    let uri = format!("amqp://{}", program.address);
    let opening = Connection::open(&uri);
    let connection = timeout(Duration::from_secs(8), opening).await.expect("there are files left").unwrap();
    connection.close().await.unwrap();
    drop(silent);
    assert!(program.stop().contains("the limit of open files allows fewer connections"));
}

#[tokio::test]
async fn users_come_from_the_environment_and_from_files() {
    let program = Program::start(
        "export RPC_BROKER_USERS=ann:secret; printf 'hidden\\n' >\"${TMPDIR:-/tmp}/rpc-bob-$$\"",
        "--password-file bob=\"${TMPDIR:-/tmp}/rpc-bob-$$\"",
    );
    for login in ["ann:secret", "bob:hidden"] {
        Connection::open(&format!("amqp://{login}@{}", program.address)).await.unwrap().close().await.unwrap();
    }
    let file = std::env::temp_dir().join(format!("rpc-bob-{}", program.child.id()));
    let refused = Connection::open(&format!("amqp://ann:@{}", program.address)).await;
    assert!(matches!(refused, Err(Error::AuthenticationRefused { .. })), "{refused:?}");
    drop(program);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn connections_and_errors_are_logged_in_plain_lines() {
    let program = Program::start("unset NO_COLOR", "");
    let uri = format!("amqp://{}", program.address);
    let name = "evil\n2030-01-01 INFO forged \u{1b}[31m";
    let options = ConnectionOptions::default().name(name);
    Connection::open_with(&uri, options).await.unwrap().close().await.unwrap();
    let properties = ConnectionProperties::default().with_connection_name("second".into());
    let connection = lapin::Connection::connect(&uri, properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("no\u{1b}[31mqueue".into(), passive, FieldTable::default()).await.unwrap_err();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("none".into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "bye\nbye".into()).await.unwrap();
    let log = program.stop();
    assert!(!log.contains('\u{1b}'), "no colours in a pipe, and none of a client's: {log:?}");
    let has = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(has(&["connection opened", "guest", "evil\\n2030", "127.0.0.1:"]), "{log}");
    assert!(has(&["connection closed", "evil\\n2030", "the client closed it: 200"]), "{log}");
    assert!(has(&["channel error", "guest", "NOT_FOUND - no queue 'no\\u{1b}[31mqueue'"]), "{log}");
    assert!(has(&["connection closed", "second", "the client closed it: 200 bye\\nbye"]), "{log}");
    assert!(log.lines().all(|line| !line.starts_with("2030")), "a line is forged: {log}");
}
