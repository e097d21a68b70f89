//! AMQP 0-9-1 on the wire: frames, methods, content. Pure.
//!
//! It decodes bytes and encodes frames. It has no sockets, and no state of a connection. The hot path (`basic.publish`,
//! `basic.ack`, deliveries, content) is decoded and encoded by hand, and forwarded as slices of the received bytes.
//! `amq-protocol` does all other methods.
//!
//! ```text
//!  bytes ──Decoder──► Batch ──► RawFrame ──► Method | ContentHeader | body slice
//!  Method, Message ──encoder──► OutBuffer ──► socket (vectored where bodies are large)
//! ```

mod content;
mod decoded_table;
mod decoder;
mod encoder;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grammar;
mod method;
mod method_error;
mod new_properties;
mod reply_code;
pub(crate) mod table;

pub(crate) use self::{
    content::{ContentHeader, ContentHeaderError, PERSISTENT, PropertyReader, PropertyWriter, Timing, plain_ms},
    decoder::{Batch, Decoder, FrameError, Frames, PROTOCOL_HEADER, Start, read_protocol_header},
    encoder::{COPY_MAX_BYTES, Content, Delivery, OutBuffer},
    frame::{FRAME_MIN_SIZE, FrameKind, RawFrame},
    grammar::Role,
    method::{Deliver, Method, Publish, method_ids, read_method},
    method_error::MethodError,
    new_properties::NewProperties,
    reply_code::ReplyCode,
};
