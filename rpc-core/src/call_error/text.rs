//! The texts of [`CallError`]: what happened, to which method, and what to do.

use std::fmt;

use super::CallError;

/// `{}` leaves the source's text out, because a report prints it next; `{:#}` adds it.
impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, method) = self.callee();
        write!(f, "{service}.{method}: ")?;
        self.fmt_what_happened(f)?;
        match self {
            Self::Service { error, .. } if f.alternate() => write!(f, ": {error:#}"),
            Self::Topology { source, .. } if f.alternate() => write!(f, ": {source:#}"),
            Self::Layer { source, .. } if f.alternate() => write!(f, ": {source:#}"),
            _ => Ok(()),
        }
    }
}

impl<E> CallError<E> {
    fn fmt_what_happened(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_sending = |maybe_executed| match maybe_executed {
            true => "; the request may have been executed",
            false => " before the request was sent",
        };
        match self {
            Self::Service { .. } => f.write_str("the service returned an error"),
            Self::UnknownError { error, .. } => {
                write!(f, "the service returned an error that this program does not know: {}", error.code)?;
                if error.message.is_empty() { Ok(()) } else { write!(f, ": {}", error.message) }
            }
            Self::NoSuchService { message, maybe_executed, .. } => {
                write!(f, "no such service: {message}; start a worker pool that serves it on this vhost")?;
                f.write_str(if *maybe_executed { "; the request may have been executed, or may be yet" } else { "" })
            }
            Self::NoSuchMethod { message, .. } => {
                write!(f, "no such method: {message}; update the workers, or correct the name")
            }
            Self::BadRequest { message, .. } => write!(f, "bad request: {message}"),
            Self::BadVersion { message, .. } => write!(f, "bad version: {message}; update the workers first"),
            Self::Overloaded { message, .. } => write!(f, "overloaded: {message}; try again later"),
            Self::Timeout { stage, after, .. } => write!(f, "timed out after {after:?} ({stage})"),
            Self::Disconnected { maybe_executed, .. } => {
                write!(f, "the connection was lost{}", after_sending(*maybe_executed))
            }
            Self::Internal { message, .. } => write!(f, "internal error of the worker: {message}"),
            Self::Abandoned { message, .. } => {
                write!(f, "abandoned: {message}; a lost worker may have executed the request")
            }
            Self::BadReply { message, .. } => write!(f, "bad reply: {message}"),
            Self::PayloadTooLarge { body_bytes, limit_bytes, maybe_executed: true, .. } => {
                write!(f, "payload too large: the broker does not take the result of {body_bytes} bytes")?;
                if *limit_bytes > 0 {
                    write!(f, ", its limit is {limit_bytes}")?;
                }
                f.write_str("; return less, or raise the broker's limit; the request was executed")
            }
            Self::PayloadTooLarge { body_bytes, limit_bytes, .. } => write!(
                f,
                "payload too large: {body_bytes} bytes, the limit is {limit_bytes}; send less, or raise \
                 ClientOptions::max_body_bytes"
            ),
            Self::Shutdown { maybe_executed, .. } => {
                write!(f, "the client was shut down{}", after_sending(*maybe_executed))
            }
            Self::Topology { .. } => f.write_str("cannot set up the client's exchanges and queues"),
            Self::Layer { maybe_executed, .. } => match maybe_executed {
                true => f.write_str("a layer of the client failed; the request may have been executed"),
                false => f.write_str("a layer of the client failed, and the request was not executed"),
            },
            Self::Other { error, .. } if error.message.is_empty() => f.write_str(&error.code),
            Self::Other { error, .. } => write!(f, "{}: {}", error.code, error.message),
        }
    }
}
