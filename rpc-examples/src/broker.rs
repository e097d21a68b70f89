//! Which broker a program talks to: the one it is given, else the bundled one.

use std::fmt;

use rpc_core::broker::Broker;

use crate::Failure;

/// The option every program has.
#[derive(Debug, Clone, clap::Args)]
pub struct BrokerArgs {
    /// The broker, as amqp://user:password@host:port/vhost; without it the program starts the bundled broker
    #[arg(long, global = true, env = "AMQP_URL", hide_env_values = true, value_name = "URI")]
    url: Option<String>,
}

impl BrokerArgs {
    /// The URI given by `--url` or `AMQP_URL`.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| !url.is_empty())
    }

    /// The broker at that URI, or a bundled one that is started now.
    ///
    /// # Errors
    /// When the bundled broker cannot listen. A broker that was given is not contacted yet.
    pub async fn broker(&self) -> Result<ExampleBroker, Failure> {
        ExampleBroker::at(self.url()).await
    }
}

/// A broker to connect to. After this nobody asks which one it is.
#[derive(Debug)]
pub struct ExampleBroker {
    uri: String,
    bundled: Option<Broker>,
}

impl ExampleBroker {
    /// The broker at `AMQP_URL`, or a bundled one: for programs without arguments.
    ///
    /// # Errors
    /// When the bundled broker cannot listen.
    pub async fn from_env() -> Result<Self, Failure> {
        let url = std::env::var("AMQP_URL").ok();
        Self::at(url.as_deref().filter(|url| !url.is_empty())).await
    }

    async fn at(url: Option<&str>) -> Result<Self, Failure> {
        if let Some(url) = url {
            return Ok(Self { uri: url.to_owned(), bundled: None });
        }
        let broker = Broker::start().await?;
        Ok(Self { uri: broker.uri().to_owned(), bundled: Some(broker) })
    }

    /// What `Connection::open` takes.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Stops the broker if this program started it.
    pub async fn stop(self) {
        if let Some(broker) = self.bundled {
            broker.shutdown().await;
        }
    }
}

/// Says where the broker is, without repeating a password somebody typed.
impl fmt::Display for ExampleBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bundled {
            Some(_) => write!(f, "the bundled broker at {}", self.uri),
            None => f.write_str("the broker of --url or AMQP_URL"),
        }
    }
}
