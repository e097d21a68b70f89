//! The reasons why a payload is no method. Pure.

/// The reason why a payload is no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodError {
    /// Shorter than the ids.
    Truncated,
    /// No class or method has these ids.
    Unknown { class_id: u16, method_id: u16 },
    /// Only the receiving peer sends this method. Its arguments have not been read.
    Foreign { class_id: u16, method_id: u16 },
    /// A short string is not UTF-8.
    NotUtf8 { class_id: u16, method_id: u16 },
    /// The ids are known, but the arguments are malformed.
    Malformed { class_id: u16, method_id: u16 },
}
