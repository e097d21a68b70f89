//! A client process for tests that freeze clients: `test_client URI SERVICE` calls a `Probe` from eight tasks, for ever.
//!
//! It prints `answered`, `ended <code> <milliseconds>` or `wrong <question> <answer>` for each call, and `reconnecting` and `connected` for
//! the connection.

use std::{io::Write, time::Instant};

use rpc_core::{Client, Connection, ConnectionOptions, ConnectionState};
use rpc_tests::NamedProbe;
use tokio::time::{Duration, sleep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (uri, service) = arguments.next().zip(arguments.next()).ok_or("usage: test_client URI SERVICE")?;
    let options = ConnectionOptions::default().reconnect_delay_max(Duration::from_millis(200));
    let connection = Connection::open_with(&uri, options).await?;
    let probe = NamedProbe::new(Client::new(&connection), &service);
    for task in 0..8 {
        tokio::spawn(ask(probe.clone(), task));
    }
    let mut states = connection.states();
    loop {
        match states.changed().await? {
            ConnectionState::Reconnecting { .. } => say("reconnecting"),
            ConnectionState::Connected => say("connected"),
            _ => {}
        }
    }
}

async fn ask(probe: NamedProbe, task: u32) {
    for number in 0_u32.. {
        let question = format!("{task}.{number}");
        let began = Instant::now();
        match probe.ask(&question, number % 2 == 0).timeout(Duration::from_millis(500)).await {
            Ok(answer) if answer == question => say("answered"),
            Ok(answer) => say(&format!("wrong {question} {answer}")),
            Err(error) => say(&format!("ended {} {}", error.code(), began.elapsed().as_millis())),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Prints a line at once, also into a pipe.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Then the test is over.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
