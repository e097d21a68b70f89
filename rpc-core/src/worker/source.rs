//! The queue a lane's requests arrive in: how it is declared, bound and consumed, at the start and after each loss.

use std::time::Duration;

use tokio::time::timeout;
use uuid::Uuid;

use super::policy::{AckPolicy, DeadLetterOptions, RedeliveryPolicy, RedeliveryRules};
use crate::{
    connection::{
        Channel, Connection, Consumer, Delivery,
        amqp::{HeaderValue, QueueDeclaration},
        open_again,
    },
    error::Error,
    service::{MethodDescriptor, ServiceDescriptor},
    task::AbortOnDrop,
    topology,
    users::Users,
};

/// One queue of a service, and everything needed to open a consumer of it again.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) connection: Connection,
    pub(super) descriptor: &'static ServiceDescriptor,
    pub(super) method_queue: Option<&'static str>,
    /// It holds the nested requests of all methods.
    pub(super) is_nested: bool,
    pub(super) prefetch_count: u16,
    pub(super) ack_policy: AckPolicy,
    pub(super) is_quorum: bool,
    pub(super) redelivery: RedeliveryRules,
    pub(super) dead_letters: DeadLetterOptions,
    /// Those whose requests are served; with the name that replies carry.
    pub(super) users: Users,
    /// Of the queue's declaration.
    pub(super) arguments: Vec<(&'static str, HeaderValue)>,
}

/// A consumer of the queue, for as long as its channel lives.
pub(super) struct Intake {
    pub(super) queue: String,
    pub(super) consumer_tag: String,
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
    #[expect(dead_code, reason = "held for its drop")]
    preparation: Option<Preparation>,
}

/// The consumer of `rpc.<service>.dead.callers`, for as long as its channel lives.
#[derive(Debug)]
pub(super) struct DeadLetters {
    pub(super) channel: Channel,
    pub(super) consumer: Consumer,
    #[expect(dead_code, reason = "held for its drop")]
    preparation: Option<Preparation>,
}

/// Declares and binds a queue that is consumed from already.
type Preparation = AbortOnDrop<()>;

/// The messages that a queue is for.
#[derive(Clone, Copy)]
enum Purpose {
    Requests,
    /// Dead letters whose callers wait.
    DeadCallers,
}

impl Source {
    /// Declares the queue and starts its consumer, on a channel of its own.
    pub(super) async fn open(&self) -> Result<Intake, Error> {
        let queue = self.queue_name();
        let (channel, preparation) = self.channel_of(&queue, Purpose::Requests).await?;
        if self.ack_policy == AckPolicy::AfterConfirmedReply {
            channel.confirm_select().await?;
        }
        // Before consuming: the prefetch count is the only bound on what the transport buffers.
        channel.qos(self.prefetch_count).await?;
        let consumer_tag = format!("{queue}.{}", Uuid::new_v4());
        let consumer = channel.consume(&queue, &consumer_tag, false).await?;
        Ok(Intake { queue, consumer_tag, channel, consumer, preparation })
    }

    /// Prepares a queue; returns the channel on which that was done.
    ///
    /// A queue that is there is used as it is, on another channel, where this user may not declare it, and where the broker does not
    /// answer for a while: RabbitMQ does not bind while a node of its cluster is frozen, and delivers all the same. The preparation
    /// then goes on behind.
    async fn channel_of(&self, queue: &str, purpose: Purpose) -> Result<(Channel, Option<Preparation>), Error> {
        let (source, name) = (self.clone(), queue.to_owned());
        let prepare = move || {
            let (source, name) = (source.clone(), name.clone());
            async move { source.prepare(&name, purpose).await }
        };
        let mut preparing = Box::pin(prepare());
        let prepared = match timeout(PREPARATION_LIMIT, &mut preparing).await {
            Ok(prepared) => prepared,
            Err(_) => tokio::select! {
                prepared = &mut preparing => prepared,
                Ok(Some(channel)) = self.existing(queue) => {
                    tracing::warn!(queue, "the broker does not answer its declarations: the queue is used as it is");
                    let preparation = async move {
                        if preparing.await.is_err() {
                            drop(open_again("the bindings of a queue", prepare).await);
                        }
                    };
                    return Ok((channel, Some(AbortOnDrop::spawn(preparation))));
                }
            },
        };
        match prepared {
            Err(refused) if refused.is_access_refused() => {
                let channel = self.existing(queue).await?;
                tracing::debug!(queue, %refused, "a queue that may not be declared is used as it is if it is there");
                Ok((channel.ok_or(refused)?, None))
            }
            prepared => Ok((prepared?, None)),
        }
    }

    /// A channel for a queue that is there already.
    async fn existing(&self, queue: &str) -> Result<Option<Channel>, Error> {
        let channel = self.connection.channel().await?;
        match channel.queue_exists(queue).await {
            Ok(exists) => Ok(exists.then_some(channel)),
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Declares the queue and everything around it; returns the channel on which that was done.
    async fn prepare(&self, queue: &str, purpose: Purpose) -> Result<Channel, Error> {
        match purpose {
            Purpose::Requests => self.prepare_requests(queue).await,
            Purpose::DeadCallers => self.prepare_dead_callers(queue).await,
        }
    }

    async fn prepare_requests(&self, queue: &str) -> Result<Channel, Error> {
        let channel = self.connection.channel().await?;
        match self.descriptor.queue {
            Some(queue) => self.declare_bare(&channel, queue).await?,
            None => self.declare(&channel).await?,
        }
        self.prepare_dead_letters(&channel, queue).await?;
        Ok(channel)
    }

    /// Declares the service's queue, its dead-letter queue, and `rpc.<service>.dead.callers` where the broker dead-letters
    /// requests. Workers declare the dead-letter queue when they need it, which their user may be forbidden to.
    pub(super) async fn declare_all(&self) -> Result<(), Error> {
        let channel = self.prepare_requests(&self.queue_name()).await?;
        self.declare_dead_queue(&channel).await?;
        if self.redelivery.delivery_limit.is_some() {
            self.prepare_dead_callers(&topology::dead_callers_queue(self.descriptor.name)).await?;
        }
        Ok(())
    }

    /// Declares `rpc.<service>.dead.callers` and consumes from it; `None` when the broker dead-letters no request.
    pub(super) async fn open_dead_letters(&self) -> Result<Option<DeadLetters>, Error> {
        if self.redelivery.delivery_limit.is_none() {
            return Ok(None);
        }
        let name = topology::dead_callers_queue(self.descriptor.name);
        let (channel, preparation) = self.channel_of(&name, Purpose::DeadCallers).await?;
        channel.qos(DEAD_LETTERS_PREFETCH).await?;
        let consumer = channel.consume(&name, "", false).await?;
        Ok(Some(DeadLetters { channel, consumer, preparation }))
    }

    async fn prepare_dead_callers(&self, name: &str) -> Result<Channel, Error> {
        let channel = self.connection.channel().await?;
        let mut arguments = kind_arguments(self.is_quorum);
        arguments.push(("x-message-ttl", HeaderValue::from(DEAD_LETTER_AGE_MAX_MS)));
        arguments.push(("x-max-length", HeaderValue::from(DEAD_LETTERS_MAX)));
        self.declare_durable(&channel, name, &arguments).await?;
        self.bind_dead_letters(&channel, &self.queue_name(), name).await?;
        Ok(channel)
    }

    /// The name of the method that a request asks for, for logs; the service may not have it.
    pub(super) fn asked_method<'a>(&self, delivery: &'a Delivery) -> &'a str {
        let routing_key = delivery.routing_key();
        match self.descriptor.method_for(routing_key) {
            Some(method) => method.name,
            None => topology::method_of(routing_key),
        }
    }

    /// The requests that may wait or run at once, with room for tasks at their end. A broker that keeps to the prefetch count never
    /// delivers more: as many wait, and with [`AckPolicy::BeforeHandler`] as many have begun.
    pub(super) fn tasks_max(&self) -> usize {
        2 * usize::from(self.prefetch_count) + TASKS_SPARE
    }

    fn queue_name(&self) -> String {
        match self.descriptor.queue {
            Some(queue) => queue.to_owned(),
            None if self.is_nested => topology::nested_queue(self.descriptor.name),
            None => topology::service_queue(self.descriptor.name, self.method_queue),
        }
    }

    /// Declares a service queue and binds it.
    async fn declare(&self, channel: &Channel) -> Result<(), Error> {
        let service = self.descriptor.name;
        channel.declare_exchanges(&topology::SERVICE_EXCHANGES).await?;
        let queue = self.queue_name();
        self.declare_durable(channel, &queue, &self.arguments).await?;
        let exchange = if self.is_nested { topology::NESTED_EXCHANGE } else { topology::EXCHANGE };
        let is_here = |method: &&MethodDescriptor| self.is_nested || method.queue == self.method_queue;
        for method in self.descriptor.methods.iter().filter(is_here) {
            for name in std::iter::once(&method.name).chain(method.aliases) {
                channel.bind_queue(&queue, exchange, &topology::binding_key(service, method.queue, name)).await?;
            }
        }
        if self.is_nested {
            // Misspelt nested requests arrive at the service queue, by the alternate exchanges.
            return Ok(());
        }
        let other = topology::other_binding_key(service, self.method_queue);
        channel.bind_queue(&queue, topology::OTHER_EXCHANGE, &other).await
    }

    /// Declares the queue of the bare profile only if it is missing: another program, often in another language, may have
    /// declared it with arguments of its own. The default exchange binds it already.
    async fn declare_bare(&self, channel: &Channel, queue: &str) -> Result<(), Error> {
        if !self.connection.channel().await?.queue_exists(queue).await? {
            self.declare_durable(channel, queue, &self.arguments).await?;
        }
        Ok(())
    }

    /// Declares the queues and bindings for requests of `queue` that are dead-lettered.
    async fn prepare_dead_letters(&self, channel: &Channel, queue: &str) -> Result<(), Error> {
        let RedeliveryRules { policy, delivery_limit } = self.redelivery;
        if delivery_limit.is_some() || policy == RedeliveryPolicy::DeadLetter {
            self.declare_dead_queue(channel).await?;
        }
        match delivery_limit {
            Some(_) => self.bind_dead_letters(channel, queue, &topology::dead_queue(self.descriptor.name)).await,
            None => Ok(()),
        }
    }

    /// Declares `rpc.<service>.dead`.
    pub(super) async fn declare_dead_queue(&self, channel: &Channel) -> Result<(), Error> {
        let mut arguments = kind_arguments(self.is_quorum);
        arguments.extend(self.dead_letters.arguments());
        self.declare_durable(channel, &topology::dead_queue(self.descriptor.name), &arguments).await
    }

    /// Binds `dead` to the requests of `queue` that the broker dead-letters at the delivery limit. Expired requests are not
    /// among them: those need no attention.
    async fn bind_dead_letters(&self, channel: &Channel, queue: &str, dead: &str) -> Result<(), Error> {
        channel.declare_exchanges(&[topology::DEAD_LETTERS]).await?;
        let arguments = [
            ("x-match", HeaderValue::from("all-with-x")),
            ("x-first-death-reason", HeaderValue::from("delivery_limit")),
            ("x-first-death-queue", HeaderValue::from(queue)),
        ];
        channel.bind_queue_by_headers(dead, topology::DEAD_EXCHANGE, &arguments).await
    }

    async fn declare_durable(
        &self,
        channel: &Channel,
        name: &str,
        arguments: &[(&'static str, HeaderValue)],
    ) -> Result<(), Error> {
        let queue = QueueDeclaration { name, durable: true, exclusive: false, auto_delete: false, arguments };
        channel.declare_queue(queue).await
    }
}

/// The arguments that choose the kind of a queue. A classic one says so, too: a vhost may have another default.
pub(super) fn kind_arguments(is_quorum: bool) -> Vec<(&'static str, HeaderValue)> {
    vec![("x-queue-type", HeaderValue::from(if is_quorum { "quorum" } else { "classic" }))]
}

/// How long a queue's declarations and bindings are waited for where the queue is there.
const PREPARATION_LIMIT: Duration = Duration::from_secs(2);
/// Tasks whose requests have been acknowledged a moment ago.
const TASKS_SPARE: usize = 64;
/// Longer than callers wait.
const DEAD_LETTER_AGE_MAX_MS: u32 = 300_000;
/// Beyond it the broker drops the oldest.
const DEAD_LETTERS_MAX: u32 = 10_000;
/// Unacknowledged dead letters that one worker holds.
const DEAD_LETTERS_PREFETCH: u16 = 16;
