//! `rpc broker`: the bundled broker as a program.

use std::{io::Write, net::SocketAddr};

use super::{burst, open_files};
use crate::{
    broker::{Broker, BrokerBuilder, BrokerError, Profile},
    signal::StopSignals,
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The address to listen on; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672")]
    listen: SocketAddr,
    /// Adds a user; may be repeated. guest:guest is predefined. Every user of this machine can read a command line: see
    /// --password-file. The environment variable RPC_BROKER_USERS adds users, too, one NAME:PASSWORD a line.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// Adds a user whose password is the content of a file, without the line break at its end; may be repeated.
    #[arg(long, value_name = "NAME=FILE")]
    password_file: Vec<String>,
    /// Adds a vhost; may be repeated. '/' is predefined.
    #[arg(long, value_name = "NAME")]
    vhost: Vec<String>,
    /// Sets a user's permissions on a vhost, as regular expressions; may be repeated. A user without any may do everything
    /// on every vhost.
    #[arg(long, num_args = 5, value_names = ["USER", "VHOST", "CONFIGURE", "WRITE", "READ"], allow_hyphen_values = true)]
    permissions: Vec<String>,
    /// Limits the routing keys with which a user may publish to (WRITE) and bind from (READ) a topic exchange; may be
    /// repeated.
    #[arg(long, num_args = 5, value_names = ["USER", "VHOST", "EXCHANGE", "WRITE", "READ"], allow_hyphen_values = true)]
    topic_permissions: Vec<String>,
    /// Sets a user's tags, separated by commas; may be repeated. Only 'impersonator' has an effect.
    #[arg(long, num_args = 2, value_names = ["USER", "TAGS"])]
    user_tags: Vec<String>,
    /// Lets the user guest connect from other machines, too.
    #[arg(long)]
    allow_remote_guest: bool,
    /// The version of RabbitMQ to pass for.
    #[arg(long = "as", value_name = "VERSION", default_value = "3.10")]
    profile: Version,
    /// Logs what clients do that this version of RabbitMQ refuses or does otherwise.
    #[arg(long, value_name = "VERSION")]
    warn_as: Option<Version>,
    #[command(flatten)]
    limits: super::limits::LimitArguments,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    tls: super::tls::TlsArguments,
}

/// A version of RabbitMQ, as the command line names it.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Version {
    #[value(name = "3.10")]
    V3_10,
    #[value(name = "4.3")]
    V4_3,
}

impl From<Version> for Profile {
    fn from(version: Version) -> Self {
        match version {
            Version::V3_10 => Self::RabbitMq3_10,
            Version::V4_3 => Self::RabbitMq4_3,
        }
    }
}

/// Runs a broker until SIGTERM or SIGINT.
pub(super) async fn run(arguments: Arguments, give_back_memory: fn()) -> Result<(), BrokerError> {
    // Before the first output, so that a signal that follows it at once shuts the broker down instead of killing it.
    let mut stop = StopSignals::listen()
        .map_err(|error| BrokerError::Configuration(format!("cannot listen for signals: {error}")))?;
    let users = std::env::var(USERS_VARIABLE).unwrap_or_default();
    let broker = builder(&arguments, &users, open_files::raise_limit())?.start().await?;
    let mut stdout = std::io::stdout();
    // The broker runs even if its stdout is closed.
    drop(writeln!(stdout, "listening on amqp://{}", broker.address()).and_then(|()| stdout.flush()));
    #[cfg(feature = "tls")]
    if let Some(address) = broker.tls_address() {
        drop(writeln!(stdout, "listening on amqps://{address}").and_then(|()| stdout.flush()));
    }
    tokio::select! {
        () = stop.next() => {}
        () = burst::give_back_after_each(|bytes| broker.takes_fall(bytes), give_back_memory) => {}
    }
    broker.shutdown().await;
    Ok(())
}

fn builder(arguments: &Arguments, users: &str, open_files_max: Option<u64>) -> Result<BrokerBuilder, BrokerError> {
    let base = versions(Broker::builder().address(arguments.listen), arguments.profile, arguments.warn_as);
    let mut builder = arguments.limits.within(base, open_files_max);
    let of_variable = users.lines().map(|user| (USERS_VARIABLE, user)).filter(|(_, user)| !user.is_empty());
    for (source, user) in of_variable.chain(arguments.user.iter().map(|user| ("--user", user.as_str()))) {
        // The text may be a password.
        let Some((name, password)) = user.split_once(':') else {
            return Err(BrokerError::Configuration(format!("{source}: write NAME:PASSWORD")));
        };
        builder = builder.user(name, password);
    }
    for file in &arguments.password_file {
        let Some((name, path)) = file.split_once('=') else {
            return Err(BrokerError::Configuration(format!("--password-file '{file}': write NAME=FILE")));
        };
        builder = builder.user(name, read_password(path)?);
    }
    for vhost in &arguments.vhost {
        builder = builder.vhost(vhost);
    }
    for setting in arguments.permissions.chunks_exact(5) {
        builder = builder.permissions(&setting[0], &setting[1], &setting[2], &setting[3], &setting[4]);
    }
    for setting in arguments.topic_permissions.chunks_exact(5) {
        builder = builder.topic_permissions(&setting[0], &setting[1], &setting[2], &setting[3], &setting[4]);
    }
    for setting in arguments.user_tags.chunks_exact(2) {
        builder = builder.user_tags(&setting[0], setting[1].split(','));
    }
    if arguments.allow_remote_guest {
        builder = builder.loopback_users(Vec::<String>::new());
    }
    #[cfg(feature = "tls")]
    let builder = arguments.tls.apply(builder)?;
    Ok(builder)
}

fn versions(builder: BrokerBuilder, profile: Version, warn_as: Option<Version>) -> BrokerBuilder {
    let builder = builder.profile(profile.into());
    match warn_as {
        None => builder,
        Some(version) => builder.warn_as(version.into()),
    }
}

/// A file's content without the line break at its end.
fn read_password(path: &str) -> Result<String, BrokerError> {
    let refuse =
        |why: &dyn std::fmt::Display| BrokerError::Configuration(format!("cannot read a password from {path}: {why}"));
    let content = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    let password = content.strip_suffix('\n').unwrap_or(&content);
    let password = password.strip_suffix('\r').unwrap_or(password);
    // A user without a password can log in with a certificate only, which an empty file hardly means.
    if password.is_empty() {
        return Err(refuse(&"the file is empty"));
    }
    Ok(password.to_owned())
}

const USERS_VARIABLE: &str = "RPC_BROKER_USERS";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    async fn start(words: &str) -> Result<Broker, String> {
        start_with(words, "").await
    }

    async fn start_with(words: &str, users: &str) -> Result<Broker, String> {
        let words = ["rpc", "--listen", "127.0.0.1:0"].into_iter().chain(words.split(' '));
        let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
        builder(&program.arguments, users, None)
            .map_err(|error| error.to_string())?
            .start()
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn users_vhosts_and_permissions_are_set_by_flags() {
        let flags = "--user ann:p:w --vhost shop --permissions ann shop ^a .* -a --topic-permissions ann shop t ^a ^b \
                     --user-tags ann impersonator,x";
        let broker = start(flags).await.unwrap();
        assert_eq!(broker.uri_for("ann", "shop").unwrap(), format!("amqp://ann:p%3Aw@{}/shop", broker.address()));
        assert!(broker.uri_for("ann", "nowhere").is_err() && broker.uri_for("eve", "shop").is_err());
        let error = start("--permissions guest / .* ( .*").await.unwrap_err();
        let start_of = "permissions of user 'guest' on vhost '/': write: '(' is no regular expression: ";
        assert!(error.starts_with(start_of), "{error}");
        assert!(start("--permissions guest / .*").await.unwrap_err().contains("5 values required"));
        assert_eq!(start("--user secret").await.unwrap_err(), "--user: write NAME:PASSWORD", "it may be a password");
    }

    #[tokio::test]
    async fn passwords_come_from_files_and_from_the_environment() {
        let folder = std::env::temp_dir();
        let file = |name: &str, content: &str| {
            let path = folder.join(format!("rpc-password-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            path.into_os_string().into_string().unwrap()
        };
        let (good, empty) = (file("good", "p=:w \r\n"), file("empty", "\n"));
        let broker = start_with(&format!("--password-file ann={good}"), "bob:b:c\n\neve:e\n").await.unwrap();
        let uri = |user: &str| broker.uri_for(user, "/").unwrap();
        assert_eq!(uri("ann"), format!("amqp://ann:p%3D%3Aw%20@{}", broker.address()));
        assert_eq!(uri("bob"), format!("amqp://bob:b%3Ac@{}", broker.address()));
        assert_eq!(uri("eve"), format!("amqp://eve:e@{}", broker.address()));
        let error = start(&format!("--password-file ann={empty}")).await.unwrap_err();
        assert!(error.ends_with("the file is empty"), "{error}");
        assert!(start("--password-file ann=/no/such").await.unwrap_err().contains("/no/such"));
        assert!(start("--password-file ann").await.unwrap_err().contains("write NAME=FILE"));
        assert_eq!(start_with("--heartbeat 1", "secret").await.unwrap_err(), "RPC_BROKER_USERS: write NAME:PASSWORD");
        for path in [good, empty] {
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn the_versions_are_set_by_flags() {
        let parse = |words: &str| Program::try_parse_from(["rpc"].into_iter().chain(words.split_whitespace()));
        for (words, expected) in [
            ("", Broker::builder()),
            ("--as 3.10", Broker::builder()),
            ("--as 4.3", Broker::builder().profile(Profile::RabbitMq4_3)),
            ("--warn-as 4.3", Broker::builder().warn_as(Profile::RabbitMq4_3)),
        ] {
            let Arguments { profile, warn_as, .. } = parse(words).unwrap().arguments;
            let built = versions(Broker::builder(), profile, warn_as);
            assert_eq!(format!("{built:?}"), format!("{expected:?}"), "{words}");
        }
        assert!(parse("--as 5.0").unwrap_err().to_string().contains("[possible values: 3.10, 4.3]"));
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn tls_needs_a_certificate_and_its_key() {
        let error = start("--tls-listen 127.0.0.1:0 --tls-cert a").await.unwrap_err();
        assert!(error.contains("--tls-key <FILE>"), "{error}");
        let error = start("--tls-listen 127.0.0.1:0 --tls-cert /none --tls-key /none").await.unwrap_err();
        assert!(error.starts_with("cannot read /none: "), "{error}");
        assert!(start("--tls-verify").await.unwrap_err().contains("--tls-ca <FILE>"));
    }
}
