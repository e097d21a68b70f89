//! The codes of the errors that workers answer with.

/// Why a worker answers without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The handler returned `Err`; the body is its error.
    Service,
    NoSuchMethod,
    BadRequest,
    BadVersion,
    Overloaded,
    Timeout,
    Internal,
    /// An earlier worker may have executed the request, and no worker executes it again.
    Abandoned,
    /// The handler ran, and the broker takes no message as large as its result.
    PayloadTooLarge,
    /// The pool serves certain users, and the request comes from none of them.
    Forbidden,
}

impl Code {
    pub(super) const ALL: [Self; 10] = [
        Self::Service,
        Self::NoSuchMethod,
        Self::BadRequest,
        Self::BadVersion,
        Self::Overloaded,
        Self::Timeout,
        Self::Internal,
        Self::Abandoned,
        Self::PayloadTooLarge,
        Self::Forbidden,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::NoSuchMethod => "no_such_method",
            Self::BadRequest => "bad_request",
            Self::BadVersion => "bad_version",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Abandoned => "abandoned",
            Self::PayloadTooLarge => "payload_too_large",
            Self::Forbidden => "forbidden",
        }
    }

    /// Whether the handler may have run.
    pub(crate) const fn maybe_executed(self) -> bool {
        match self {
            Self::Service | Self::Timeout | Self::Internal | Self::Abandoned | Self::PayloadTooLarge => true,
            Self::NoSuchMethod | Self::BadRequest | Self::BadVersion | Self::Overloaded | Self::Forbidden => false,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    pub(crate) const fn is_retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::Timeout)
    }
}
