//! Events about a request: each names its service, its method, its `message_id`, and whether it was delivered before.

/// Logs an event about the request of a delivery, with further fields as `tracing`'s macros take them.
macro_rules! log_request {
    ($level:ident, $source:expr, $delivery:expr, $($fields:tt)+) => {{
        let (source, delivery): (&crate::worker::source::Source, &crate::connection::Delivery) = (&$source, &$delivery);
        tracing::$level!(
            service = source.descriptor.name,
            method = %crate::printable::printable(source.asked_method(delivery)),
            message_id = %crate::printable::printable(delivery.message_id().unwrap_or_default()),
            redelivered = delivery.redelivered(),
            $($fields)+
        )
    }};
}

pub(super) use log_request;
