//! Histories without sockets: frames into the core, output looked at as frames.
