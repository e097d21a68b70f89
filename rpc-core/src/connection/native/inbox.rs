//! What comes on one channel: deliveries and returned messages put together, confirms and answers told to those who wait.

use std::{collections::VecDeque, mem};

use amq_protocol::protocol::{
    AMQPClass,
    basic::AMQPMethod as Basic,
    channel::{self, AMQPMethod as Channel},
};
use tokio::sync::{mpsc, oneshot};

use super::{message::Message, shared::Failure};
use crate::{
    connection::{delivery::Delivery, transport::Returned},
    wire::{ContentHeader, ContentHeaderError, Deliver, FrameKind, Method, RawFrame, read_method, table::DEPTH_MAX},
};

/// What the broker says of a publish: acked or not, and a message that was returned on the channel before that.
pub(super) type Confirmed = Result<(bool, Option<Returned>), Failure>;

type Answer = Result<AMQPClass, Failure>;

/// Of a class, and of a method in it.
type Ids = (u16, u16);

fn ids(class: &AMQPClass) -> Ids {
    (class.get_amqp_class_id(), class.get_amqp_method_id())
}

/// A channel, as far as its frames tell.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Who waits for an answer, by its ids. Answers come in the order of the questions, but for `basic.cancel-ok`: in RabbitMQ
    /// the queue sends it, behind what the channel answers meanwhile, and not at all once the channel is closed.
    answers: Vec<(Ids, oneshot::Sender<Answer>)>,
    consumers: Vec<Registered>,
    /// Of tags given by us.
    last_tag: u64,
    content: Option<Content>,
    /// Of the content that has begun; kept for its room.
    routing_key: Vec<u8>,
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
}

/// A content that has begun.
#[derive(Debug)]
struct Content {
    kind: Kind,
    /// Once its header is here: what there is of it, and how much is to come.
    message: Option<(Message, u64)>,
}

#[derive(Debug)]
enum Kind {
    /// To a place in `consumers`; to none when that one has gone.
    Delivery {
        consumer: Option<usize>,
        delivery_tag: u64,
        redelivered: bool,
    },
    Return {
        reply_text: String,
    },
}

/// What is to be done for a frame with the channel unlocked.
#[derive(Debug)]
pub(super) enum Task {
    /// The broker has closed the channel.
    Close(Failure),
    /// It has confirmed that the channel is closed.
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

    /// The broker's word on the message that was just queued.
    pub(super) fn await_confirm(&mut self) -> oneshot::Receiver<Confirmed> {
        let (sender, receiver) = oneshot::channel();
        self.last_publish += 1;
        self.confirms.push_back((self.last_publish, sender));
        receiver
    }

    pub(super) fn add_consumer(&mut self, consumer_tag: &str) -> (String, mpsc::UnboundedReceiver<Delivery>) {
        let consumer_tag = match consumer_tag {
            "" => {
                self.last_tag += 1;
                format!("rpc.{}", self.last_tag)
            }
            consumer_tag => consumer_tag.to_owned(),
        };
        let (deliveries, receiver) = mpsc::unbounded_channel();
        self.consumers.push(Registered { consumer_tag: consumer_tag.as_bytes().into(), deliveries });
        (consumer_tag, receiver)
    }

    pub(super) fn take_returned(&mut self) -> Vec<Returned> {
        mem::take(&mut self.returned).into()
    }

    /// Takes a frame. The error is the connection's end.
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
        let method = read_method(payload, DEPTH_MAX)
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
                return Ok(Some(Task::Close(Failure::told(close.reply_code, close.reply_text.as_str()))));
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
            // Whoever asked may have gone.
            drop(waiter.send(Ok(class)));
        }
    }

    /// Its stream ends behind what has come for it.
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
            // Every returned message is one that was not confirmed before: there are confirms enough for all.
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
            // Whoever published it is to blame, and the next consumer would fare no better: it comes without them.
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
        if header.body_size == 0 {
            self.complete();
        }
        Ok(())
    }

    fn body(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let Some((message, left)) = self.content.as_mut().and_then(|content| content.message.as_mut()) else {
            return Err(Failure::lost("the broker sent a body without a content header"));
        };
        *left = left
            .checked_sub(payload.len() as u64)
            .ok_or_else(|| Failure::lost("the broker sent a longer body than announced"))?;
        message.push(payload);
        if *left == 0 {
            self.complete();
        }
        Ok(())
    }

    fn complete(&mut self) {
        let Some(Content { kind, message: Some((message, _)) }) = self.content.take() else { return };
        match kind {
            Kind::Delivery { consumer, delivery_tag, redelivered } => {
                if let Some(consumer) = consumer.and_then(|consumer| self.consumers.get(consumer)) {
                    let message = message.delivered(delivery_tag, redelivered);
                    // Whoever consumed may have gone, and the channel is about to.
                    drop(consumer.deliveries.send(message.into()));
                }
            }
            Kind::Return { reply_text } => {
                if self.returned.len() == RETURNED_MAX {
                    self.returned.pop_front();
                }
                let correlation_id = message.correlation_id().map(str::to_owned);
                self.returned.push_back(Returned { correlation_id, reply_text });
            }
        }
    }

    /// Takes everybody out who waits.
    pub(super) fn end(&mut self) -> Ended {
        self.consumers.clear();
        self.content = None;
        Ended { answers: mem::take(&mut self.answers), confirms: mem::take(&mut self.confirms) }
    }
}

/// Those who waited when a channel ended.
pub(super) struct Ended {
    answers: Vec<(Ids, oneshot::Sender<Answer>)>,
    confirms: VecDeque<(u64, oneshot::Sender<Confirmed>)>,
}

impl Ended {
    pub(super) fn tell(self, failure: &Failure) {
        for (_, waiter) in self.answers {
            drop(waiter.send(Err(failure.clone())));
        }
        for (_, waiter) in self.confirms {
            drop(waiter.send(Err(failure.clone())));
        }
    }
}

/// RabbitMQ: no message is larger, whatever is configured.
const BODY_MAX_BYTES: u64 = 512 * 1_024 * 1_024;
/// Room that is taken for a body before it comes.
const ROOM_MAX_BYTES: u64 = 1_024 * 1_024;
/// Returned messages that are held for whoever looks for them; the oldest go first.
const RETURNED_MAX: usize = 65_536;
