//! The receiving half of one AMQP channel: assembles deliveries and returned messages, and hands confirms and answers to their
//! waiters.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use amq_protocol::protocol::{
    AMQPClass,
    basic::AMQPMethod as Basic,
    channel::{self, AMQPMethod as Channel},
};
use tokio::sync::{mpsc, oneshot};

use super::{failure::Failure, message::Message};
use crate::{
    connection::{amqp::Returned, delivery::Delivery},
    wire::{
        ContentHeader, ContentHeaderError, Deliver, FrameKind, Method, RawFrame, Role, read_method, table::DEPTH_MAX,
    },
};

/// The broker's confirm of a publish: acked or not, and a message that was returned on the channel before that.
pub(super) type Confirmed = Result<(bool, Option<Returned>), Failure>;

/// The returned messages of one channel outside confirm mode, as they arrive: at most [`RETURNED_MAX`].
pub(crate) type Returns = mpsc::Receiver<Returned>;

type Answer = Result<AMQPClass, Failure>;

/// Of a class, and of a method in it.
type Ids = (u16, u16);

fn ids(class: &AMQPClass) -> Ids {
    (class.get_amqp_class_id(), class.get_amqp_method_id())
}

/// The state of a channel that depends on the frames it receives.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The waiters for answers, by the ids of the answer. Answers arrive in the order of the questions, except
    /// `basic.cancel-ok`: RabbitMQ's queue sends it, after later answers of the channel, and not at all once the channel is
    /// closed.
    answers: Vec<(Ids, oneshot::Sender<Answer>)>,
    consumers: Vec<Registered>,
    /// Of tags given by us.
    last_tag: u64,
    content: Option<Content>,
    /// The routing key of the content that has begun; the buffer is reused.
    routing_key: Vec<u8>,
    /// Takes returned messages outside confirm mode.
    returns: Option<mpsc::Sender<Returned>>,
    /// Returned messages that leave with the next confirms.
    returned: VecDeque<Returned>,
    /// The number of the last publish in confirm mode.
    last_publish: u64,
    /// In the order of their numbers.
    confirms: VecDeque<(u64, oneshot::Sender<Confirmed>)>,
}

#[derive(Debug)]
struct Registered {
    consumer_tag: Box<[u8]>,
    deliveries: mpsc::UnboundedSender<Delivery>,
    /// The bytes of those that the consumer has not taken yet.
    waiting_bytes: Arc<AtomicUsize>,
}

/// The deliveries of one consumer, as they arrive. Their bytes are bounded: [`WAITING_MAX_BYTES`].
#[derive(Debug)]
pub(super) struct Deliveries {
    inbox: mpsc::UnboundedReceiver<Delivery>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Deliveries {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.inbox.poll_recv(cx).map(|delivery| delivery.inspect(|delivery| self.taken(delivery)))
    }

    pub(super) fn next_ready(&mut self) -> Option<Delivery> {
        self.inbox.try_recv().ok().inspect(|delivery| self.taken(delivery))
    }

    fn taken(&self, delivery: &Delivery) {
        let bytes = delivery.native().map_or(0, Message::bytes);
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A content that has begun.
#[derive(Debug)]
struct Content {
    kind: Kind,
    /// Set once its header has arrived: the message so far, and how many bytes are missing.
    message: Option<(Message, u64)>,
}

#[derive(Debug)]
enum Kind {
    /// For a place in `consumers`; `None` when that consumer is cancelled.
    Delivery {
        consumer: Option<usize>,
        delivery_tag: u64,
        redelivered: bool,
    },
    Return {
        reply_text: String,
    },
}

/// The work that a frame asks for once the channel is unlocked.
#[derive(Debug)]
pub(super) enum Task {
    /// The broker has closed the channel.
    Close(Failure),
    /// The broker has confirmed that the channel is closed.
    Free,
    /// A method to answer with.
    Answer(AMQPClass),
}

impl State {
    /// The answer to the method that was just queued.
    pub(super) fn await_answer(&mut self, question: &AMQPClass) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        // AMQP numbers every answer one above its question.
        let (class_id, method_id) = ids(question);
        self.answers.push(((class_id, method_id + 1), sender));
        receiver
    }

    /// The broker's confirm of the message that was just queued.
    pub(super) fn await_confirm(&mut self) -> oneshot::Receiver<Confirmed> {
        let (sender, receiver) = oneshot::channel();
        self.last_publish += 1;
        self.confirms.push_back((self.last_publish, sender));
        receiver
    }

    pub(super) fn add_consumer(&mut self, consumer_tag: &str) -> (String, Deliveries) {
        let consumer_tag = match consumer_tag {
            "" => {
                self.last_tag += 1;
                format!("rpc.{}", self.last_tag)
            }
            consumer_tag => consumer_tag.to_owned(),
        };
        let (deliveries, inbox) = mpsc::unbounded_channel();
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let taken = Deliveries { inbox, waiting_bytes: Arc::clone(&waiting_bytes) };
        self.consumers.push(Registered { consumer_tag: consumer_tag.as_bytes().into(), deliveries, waiting_bytes });
        (consumer_tag, taken)
    }

    /// Hands over the messages that are returned from now on.
    pub(super) fn push_returned(&mut self) -> Returns {
        let (sender, receiver) = mpsc::channel(RETURNED_MAX);
        self.returns = Some(sender);
        receiver
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// The broker has violated the protocol, which ends the connection.
    pub(super) fn take(&mut self, frame: &RawFrame<'_>) -> Result<Option<Task>, Failure> {
        match frame.kind {
            FrameKind::Method => self.method(frame.payload),
            FrameKind::Header => self.header(frame.payload).map(|()| None),
            FrameKind::Body => self.body(frame.payload).map(|()| None),
            FrameKind::Heartbeat => Ok(None),
        }
    }

    fn method(&mut self, payload: &[u8]) -> Result<Option<Task>, Failure> {
        if self.content.is_some() {
            return Err(Failure::lost("the broker sent a method inside a message"));
        }
        if let Some(deliver) = Deliver::read(payload) {
            let consumer = self.consumers.iter().position(|known| *known.consumer_tag == *deliver.consumer_tag);
            let (delivery_tag, redelivered) = (deliver.delivery_tag, deliver.redelivered);
            self.content =
                Some(Content { kind: Kind::Delivery { consumer, delivery_tag, redelivered }, message: None });
            self.routing_key.clear();
            self.routing_key.extend_from_slice(deliver.routing_key);
            return Ok(None);
        }
        let method = read_method(payload, Role::Server, DEPTH_MAX)
            .map_err(|error| Failure::lost(format!("the broker sent what is no method: {error:?}")))?;
        let class = match method {
            Method::Ack(ack) => {
                self.confirm(ack.delivery_tag, ack.multiple, true);
                return Ok(None);
            }
            Method::Publish(_) => return Err(Failure::lost("the broker sent basic.publish")),
            Method::Other(class) => *class,
        };
        match class {
            AMQPClass::Basic(Basic::Nack(nack)) => self.confirm(nack.delivery_tag, nack.multiple, false),
            AMQPClass::Basic(Basic::Return(returned)) => {
                let reply_text = returned.reply_text.as_str().to_owned();
                self.content = Some(Content { kind: Kind::Return { reply_text }, message: None });
                self.routing_key.clear();
            }
            // The broker cancels without waiting for an answer.
            AMQPClass::Basic(Basic::Cancel(cancel)) => self.remove_consumer(cancel.consumer_tag.as_str()),
            AMQPClass::Channel(Channel::Close(close)) => {
                return Ok(Some(Task::Close(Failure::announced(close.reply_code, close.reply_text.as_str()))));
            }
            AMQPClass::Channel(Channel::CloseOk(_)) => {
                self.answer(class);
                return Ok(Some(Task::Free));
            }
            AMQPClass::Channel(Channel::Flow(flow)) => {
                let flow_ok = channel::FlowOk { active: flow.active };
                return Ok(Some(Task::Answer(AMQPClass::Channel(Channel::FlowOk(flow_ok)))));
            }
            AMQPClass::Basic(Basic::CancelOk(ref cancelled)) => {
                self.remove_consumer(cancelled.consumer_tag.as_str());
                self.answer(class);
            }
            _ => self.answer(class),
        }
        Ok(None)
    }

    fn answer(&mut self, class: AMQPClass) {
        let ids = ids(&class);
        if let Some(at) = self.answers.iter().position(|(awaited, _)| *awaited == ids) {
            let (_, waiter) = self.answers.remove(at);
            // An error says that the waiter has stopped waiting.
            drop(waiter.send(Ok(class)));
        }
    }

    /// Its stream ends after the deliveries that have arrived.
    fn remove_consumer(&mut self, consumer_tag: &str) {
        self.consumers.retain(|known| *known.consumer_tag != *consumer_tag.as_bytes());
    }

    fn confirm(&mut self, delivery_tag: u64, multiple: bool, is_ack: bool) {
        if multiple {
            while self.confirms.front().is_some_and(|(number, _)| *number <= delivery_tag) {
                self.confirm_at(0, is_ack);
            }
        } else if let Ok(at) = self.confirms.binary_search_by_key(&delivery_tag, |(number, _)| *number) {
            self.confirm_at(at, is_ack);
        }
    }

    fn confirm_at(&mut self, at: usize, is_ack: bool) {
        if let Some((_, waiter)) = self.confirms.remove(at) {
            // Each returned message is unconfirmed when it arrives, so there are enough confirms for all of them.
            let returned = self.returned.pop_front();
            drop(waiter.send(Ok((is_ack, returned))));
        }
    }

    fn header(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let Some(content) = self.content.as_mut().filter(|content| content.message.is_none()) else {
            return Err(Failure::lost("the broker sent a content header without a method"));
        };
        let header = match ContentHeader::read(payload, DEPTH_MAX) {
            Ok(header) => header,
            // The publisher sent malformed properties; requeueing would only hand them to the next consumer, so the message
            // is delivered without them.
            Err(ContentHeaderError::Properties { body_size }) => ContentHeader { body_size, properties: &[0, 0] },
            Err(error) => {
                return Err(Failure::lost(format!("the broker sent what is no content header: {error:?}")));
            }
        };
        if header.body_size > BODY_MAX_BYTES {
            let bytes = header.body_size;
            return Err(Failure::lost(format!("a message of {bytes} bytes: the limit is {BODY_MAX_BYTES}")));
        }
        let room = header.body_size.min(ROOM_MAX_BYTES) as usize;
        let message = Message::new(&self.routing_key, header.properties, room);
        content.message = Some((message, header.body_size));
        if header.body_size == 0 { self.complete() } else { Ok(()) }
    }

    fn body(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let Some((message, left)) = self.content.as_mut().and_then(|content| content.message.as_mut()) else {
            return Err(Failure::lost("the broker sent a body without a content header"));
        };
        *left = left
            .checked_sub(payload.len() as u64)
            .ok_or_else(|| Failure::lost("the broker sent a longer body than announced"))?;
        message.push(payload);
        if *left == 0 { self.complete() } else { Ok(()) }
    }

    fn complete(&mut self) -> Result<(), Failure> {
        let Some(Content { kind, message: Some((message, _)) }) = self.content.take() else { return Ok(()) };
        match kind {
            Kind::Delivery { consumer, delivery_tag, redelivered } => {
                if let Some(consumer) = consumer.and_then(|consumer| self.consumers.get(consumer)) {
                    let message = message.delivered(delivery_tag, redelivered);
                    let waiting_bytes = consumer.waiting_bytes.fetch_add(message.bytes(), Ordering::Relaxed);
                    // The prefetch count bounds them, and a client takes its replies at once.
                    if waiting_bytes > WAITING_MAX_BYTES {
                        let reason =
                            format!("{waiting_bytes} bytes of deliveries wait for a consumer that does not take them");
                        return Err(Failure::lost(reason));
                    }
                    // An error says that the consumer is dropped; its channel is about to close.
                    drop(consumer.deliveries.send(message.into()));
                }
            }
            Kind::Return { reply_text } => {
                let returned = Returned { correlation_id: message.correlation_id().map(str::to_owned), reply_text };
                match &self.returns {
                    // An error says that its receiver is dropped, or that there are more than anyone has published.
                    Some(returns) => drop(returns.try_send(returned)),
                    None if self.returned.len() < self.confirms.len() => self.returned.push_back(returned),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Ends the consumers, and takes out the waiters.
    pub(super) fn end(&mut self) -> Ended {
        self.consumers.clear();
        self.returns = None;
        self.content = None;
        Ended { answers: mem::take(&mut self.answers), confirms: mem::take(&mut self.confirms) }
    }
}

/// The waiters of a channel that has ended.
pub(super) struct Ended {
    answers: Vec<(Ids, oneshot::Sender<Answer>)>,
    confirms: VecDeque<(u64, oneshot::Sender<Confirmed>)>,
}

impl Ended {
    pub(super) fn fail(self, failure: &Failure) {
        for (_, waiter) in self.answers {
            drop(waiter.send(Err(failure.clone())));
        }
        for (_, waiter) in self.confirms {
            drop(waiter.send(Err(failure.clone())));
        }
    }
}

/// Returned messages that wait to be taken; further ones are dropped, and their calls end at their deadlines.
const RETURNED_MAX: usize = 65_536;
/// Bytes of deliveries that wait to be taken; beyond it the connection ends.
const WAITING_MAX_BYTES: usize = 256 * 1_024 * 1_024;
/// RabbitMQ: no message is larger, whatever is configured.
const BODY_MAX_BYTES: u64 = 512 * 1_024 * 1_024;
/// The largest buffer that is reserved for a body before it arrives.
const ROOM_MAX_BYTES: u64 = 1_024 * 1_024;
