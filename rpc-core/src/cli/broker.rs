//! `rpc broker`: the bundled broker as a program.

use std::{io::Write, net::SocketAddr, time::Duration};

use crate::broker::{Broker, BrokerError};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672")]
    listen: SocketAddr,
    /// Adds a user; may be repeated. guest:guest is there from the start.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// Adds a vhost; may be repeated. '/' is there from the start.
    #[arg(long, value_name = "NAME")]
    vhost: Vec<String>,
    /// The heartbeat offered to clients, in seconds; 0 is none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    heartbeat: u16,
    /// The largest frame, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 131_072)]
    frame_max: u32,
    /// Channels a connection may open.
    #[arg(long, value_name = "CHANNELS", default_value_t = 2_047)]
    channel_max: u16,
    /// The largest message, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    message_max: u64,
    /// Connections at once.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 65_536)]
    connections_max: usize,
}

/// Runs a broker until it is told to stop.
pub(super) async fn run(arguments: Arguments) -> Result<(), BrokerError> {
    // Before anybody can know that we run: a signal that comes early must not kill us rudely.
    let mut stop = Stop::new()?;
    let mut builder = Broker::builder()
        .address(arguments.listen)
        .heartbeat(Duration::from_secs(arguments.heartbeat.into()))
        .frame_max(arguments.frame_max)
        .channel_max(arguments.channel_max)
        .message_max_bytes(arguments.message_max)
        .connections_max(arguments.connections_max);
    for user in &arguments.user {
        let Some((name, password)) = user.split_once(':') else {
            return Err(BrokerError::Configuration(format!("--user '{user}' is not NAME:PASSWORD")));
        };
        builder = builder.user(name, password);
    }
    for vhost in arguments.vhost {
        builder = builder.vhost(vhost);
    }
    let broker = builder.start().await?;
    let mut stdout = std::io::stdout();
    // Whoever started us may have closed our stdout: we serve all the same.
    drop(writeln!(stdout, "listening on amqp://{}", broker.address()).and_then(|()| stdout.flush()));
    stop.wait().await;
    broker.shutdown().await;
    Ok(())
}

/// SIGTERM and SIGINT.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    fn new() -> Result<Self, BrokerError> {
        use tokio::signal::unix::{SignalKind, signal};
        let refused = |error| BrokerError::Configuration(format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(refused)?,
            interrupt: signal(SignalKind::interrupt()).map_err(refused)?,
        })
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, BrokerError> {
        Ok(Self {})
    }

    async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        drop(tokio::signal::ctrl_c().await);
    }
}
