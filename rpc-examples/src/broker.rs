//! The broker a program uses: the one it is given, else the bundled one.

use std::fmt;

use rpc_core::{Connection, ConnectionOptions, Error, broker::Broker};

use crate::Failure;

/// The option every program has.
#[derive(Debug, Clone, clap::Args)]
pub struct BrokerArgs {
    /// The broker, as amqp://user:password@host:port/vhost, or the nodes of a cluster, separated by commas; without it
    /// the program starts the bundled broker
    #[arg(long, global = true, env = "AMQP_URL", hide_env_values = true, value_name = "URI", value_delimiter = ',')]
    url: Vec<String>,
}

impl BrokerArgs {
    /// Whether `--url` or `AMQP_URL` says where a broker is.
    pub fn is_given(&self) -> bool {
        self.url.iter().any(|url| !url.is_empty())
    }

    /// The broker at that URI, or a bundled one that is started now.
    ///
    /// # Errors
    /// When the bundled broker cannot listen. A broker that was given is not contacted yet.
    pub async fn broker(&self) -> Result<ExampleBroker, Failure> {
        ExampleBroker::at(&self.url).await
    }
}

/// A broker to connect to. The rest of a program does not depend on which one it is.
#[derive(Debug)]
pub struct ExampleBroker {
    /// One for each node.
    uris: Vec<String>,
    bundled: Option<Broker>,
}

impl ExampleBroker {
    /// The broker at `AMQP_URL`, or a bundled one: for programs without arguments.
    ///
    /// # Errors
    /// When the bundled broker cannot listen.
    pub async fn from_env() -> Result<Self, Failure> {
        Self::at(std::env::var("AMQP_URL").ok().as_slice()).await
    }

    async fn at(urls: &[String]) -> Result<Self, Failure> {
        let uris: Vec<_> = urls.iter().filter(|url| !url.is_empty()).cloned().collect();
        if !uris.is_empty() {
            return Ok(Self { uris, bundled: None });
        }
        let broker = Broker::start().await?;
        Ok(Self { uris: vec![broker.uri().to_owned()], bundled: Some(broker) })
    }

    /// The URI for `Connection::open`: the broker, or the first node of a cluster.
    pub fn uri(&self) -> &str {
        self.uris.first().map_or("", String::as_str)
    }

    /// Connects to any node, beginning with the `nth`, so that several connections spread over all of them.
    ///
    /// # Errors
    /// When no node can be reached.
    pub async fn connect(&self, nth: usize) -> Result<Connection, Error> {
        let mut uris: Vec<_> = self.uris.iter().map(String::as_str).collect();
        let nodes = uris.len().max(1);
        uris.rotate_left(nth % nodes);
        Connection::open_any(&uris, ConnectionOptions::default()).await
    }

    /// Stops the broker if this program started it.
    pub async fn stop(self) {
        if let Some(broker) = self.bundled {
            broker.shutdown().await;
        }
    }
}

/// Says where the broker is, without the password and the parameters of a given URI.
impl fmt::Display for ExampleBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bundled {
            Some(_) => write!(f, "the bundled broker at {}", self.uri()),
            None => {
                let places: Vec<_> = self.uris.iter().map(|uri| without_password(uri)).collect();
                f.write_str(&places.join(", "))
            }
        }
    }
}

fn without_password(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    // A password may contain any character but `/`, so the address follows the last `@` before the vhost.
    let (authority, vhost) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    match authority.rsplit_once('@') {
        Some((login, address)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{address}{vhost}")
        }
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_broker_is_named_without_its_password() {
        for (uri, shown) in [
            ("amqp://shop:s3cret@node-1:5672/v?heartbeat=1", "amqp://shop@node-1:5672/v"),
            ("amqps://shop:a@b@node/%2f", "amqps://shop@node/%2f"),
            ("amqp://localhost", "amqp://localhost"),
        ] {
            let broker = ExampleBroker { uris: vec![uri.to_owned()], bundled: None };
            assert_eq!(broker.to_string(), shown);
        }
    }
}
