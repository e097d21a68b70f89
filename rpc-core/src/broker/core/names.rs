//! Names as they are in frames: bytes, text and short strings.

use std::borrow::Cow;

use amq_protocol::types::ShortString;

/// A name as text. Routing keys need not be UTF-8; all other names are.
pub(crate) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    // `from_utf8_lossy` alone costs several times as much for text that is valid.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// A name as RabbitMQ shows it: text that is not UTF-8 is Latin-1.
pub(crate) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    let of_latin_1 = |_| Cow::Owned(bytes.iter().copied().map(char::from).collect());
    std::str::from_utf8(bytes).map_or_else(of_latin_1, Cow::Borrowed)
}

/// A short string of a text that was read from one, or generated to fit; empty for a longer text.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap_or_default()
}

/// Removes line breaks, as RabbitMQ does from names in methods that declare, bind, unbind and delete. Names that are
/// published to, consumed from or purged keep theirs.
pub(crate) fn drop_line_breaks(name: &mut ShortString) {
    if name.as_str().contains(['\r', '\n']) {
        *name = short(&name.as_str().replace(['\r', '\n'], ""));
    }
}
