//! The brokers of a run: the bundled one in a process of its own, and RabbitMQ when there is a URL.

use rpc_core::broker::Broker;

use crate::{
    Flavour, Result,
    processes::{self, Process},
    subjects,
};

/// A broker to measure on.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// Ours to stop, and ours to ask for its CPU time.
    process: Option<Process>,
}

impl Target {
    /// The bundled broker, started now.
    pub(crate) fn bundled() -> Result<Self> {
        let mut process = Process::start(&["broker"], None)?;
        Ok(Self { name: "bundled broker", url: process.line()?, process: Some(process) })
    }

    /// A broker that runs already.
    pub(crate) fn remote(url: &str) -> Self {
        Self { name: "broker at --url", url: url.to_owned(), process: None }
    }

    pub(crate) fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Stops the bundled broker; takes what is ours and durable off another one.
    pub(crate) fn stop(self) -> Result<()> {
        match self.process {
            Some(process) => process.stop(),
            None => Flavour::Current.block_on(subjects::delete_queue(&self.url)),
        }
    }
}

/// The `broker` command.
pub(crate) fn serve() -> Result<()> {
    Flavour::Current.block_on(async {
        let broker = Broker::start().await?;
        println!("{}", broker.uri());
        processes::stdin_closed().await
    })
}
