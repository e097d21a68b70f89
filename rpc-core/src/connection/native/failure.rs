//! The end of a channel or a connection.

use std::sync::Arc;

use crate::{connection::amqp::CONNECTION_FORCED, error::Error};

/// Why a channel or a connection can no longer be used.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The broker closed it with a reply code of its own.
    Refused {
        reply_code: u16,
        reply_text: Arc<str>,
    },
    Lost {
        reason: Arc<str>,
    },
}

impl Failure {
    pub(super) fn lost(reason: impl AsRef<str>) -> Self {
        Self::Lost { reason: reason.as_ref().into() }
    }

    pub(super) fn closed_by_us() -> Self {
        Self::lost("closed by the application")
    }

    /// The failure that a `close` of the broker announces.
    pub(super) fn announced(reply_code: u16, reply_text: &str) -> Self {
        match reply_code {
            CONNECTION_FORCED => Self::lost(format!("{reply_code} {reply_text}")),
            _ => Self::Refused { reply_code, reply_text: reply_text.into() },
        }
    }

    /// As the error of an operation that was under way.
    pub(super) fn error(&self, operation: &str) -> Error {
        match self {
            Self::Refused { reply_code, reply_text } => Error::Refused {
                operation: operation.to_owned(),
                reply_code: *reply_code,
                reply_text: reply_text.to_string(),
            },
            Self::Lost { reason } => Error::Disconnected { reason: reason.to_string() },
        }
    }

    /// As the error of an operation that is attempted afterwards: the broker has not refused that one, and may accept it on
    /// another channel.
    pub(super) fn late(&self) -> Error {
        Error::Disconnected { reason: self.reason() }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused { reply_code, reply_text } => format!("{reply_code} {reply_text}"),
            Self::Lost { reason } => reason.to_string(),
        }
    }
}
