//! The routing engine: which queues does a message reach?
