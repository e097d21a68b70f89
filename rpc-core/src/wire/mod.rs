//! AMQP 0-9-1 on the wire: frames, methods, content. Pure.
//!
//! No sockets, no state of a connection: bytes in, frames out, and back. What is hot (`basic.publish`, `basic.ack`,
//! deliveries, content) is read and written by hand and passed through as slices of what was received; everything
//! else goes through `amq-protocol`.
//!
//! ```text
//!  bytes ──Decoder──► Batch ──► RawFrame ──► Method | ContentHeader | body slice
//!  Method, Message ──encoder──► OutBuffer ──► socket (vectored where bodies are large)
//! ```

mod content;
mod decoder;
mod encoder;
mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod method;
mod new_properties;
mod reply_code;
pub(crate) mod table;

pub(crate) use self::{
    content::{ContentHeader, ContentHeaderError, PropertyReader, PropertyWriter},
    decoder::{Batch, Decoder, FrameError, Frames, PROTOCOL_HEADER, Start, read_protocol_header},
    encoder::{COPY_MAX_BYTES, Content, Delivery, OutBuffer},
    frame::{FRAME_MIN_SIZE, FrameKind, RawFrame},
    method::{Deliver, Method, MethodError, Publish, method_ids, read_method},
    new_properties::NewProperties,
    reply_code::ReplyCode,
};
