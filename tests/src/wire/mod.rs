//! A byte-level AMQP 0-9-1 client: it sends frames that no library would send, and shows the answers frame by frame.
//!
//! It shares no code with the client or the broker under test, keeps no protocol state and hides nothing; methods,
//! properties and tables are written and shown in one notation (see [`text`](Cursor)).
//!
//! ```text
//!  queue.declare queue=q durable ──encode_method──► bytes ──Socket──► broker
//!  queue.declare-ok queue="q" …  ◄──────show─────── frame ◄─reader──┘
//! ```

mod codec;
mod methods;
mod quote;
mod reader;
mod socket;
mod text;
mod value;

pub use codec::{Arguments, FRAME_END, encode_frame, encode_header, encode_method, kind, method_of, show};
pub use methods::Method;
pub use quote::quote;
pub use socket::{Received, Socket};
pub use text::Cursor;
pub use value::{Table, Value, show_table};
