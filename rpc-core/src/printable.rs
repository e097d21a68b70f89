//! Bytes of a peer, as they may stand in a log or an error: control characters escaped, and cut to a length.
//!
//! Pure. A line break would forge a line of a log, an escape sequence would move the cursor of the terminal that shows
//! it, and a name of megabytes would fill the disk.

use std::fmt::{self, Write as _};

/// Shows text or bytes of a peer: control characters and bytes that are not UTF-8 escaped, cut to [`LENGTH_MAX`] bytes.
pub(crate) struct Printable<'a> {
    bytes: &'a [u8],
    length_max: usize,
}

/// Shows a name, a reason or another short text of a peer.
pub(crate) fn printable<T: AsRef<[u8]> + ?Sized>(text: &T) -> Printable<'_> {
    Printable { bytes: text.as_ref(), length_max: LENGTH_MAX }
}

impl Printable<'_> {
    /// Cuts at another length, in bytes before escaping.
    pub(crate) const fn up_to(self, length_max: usize) -> Self {
        Self { length_max, ..self }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.length_max;
        for chunk in self.bytes.utf8_chunks() {
            for char in chunk.valid().chars() {
                let Some(rest) = left.checked_sub(char.len_utf8()) else { return f.write_char('…') };
                left = rest;
                if is_harmless(char) { f.write_char(char)? } else { write!(f, "{}", char.escape_default())? }
            }
            for byte in chunk.invalid() {
                let Some(rest) = left.checked_sub(1) else { return f.write_char('…') };
                left = rest;
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Neither a control character nor one that breaks a line or changes the direction of the text after it.
fn is_harmless(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{2028}' | '\u{2029}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The longest name AMQP allows, in bytes.
const LENGTH_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_shown_as_it_is() {
        for text in ["", "rpc.stock", "Grüße, 世界", "it's \"quoted\"", "C:\\path"] {
            assert_eq!(printable(text).to_string(), text);
        }
        assert_eq!(format!("{:?}", printable("a\nb")), r#""a\nb""#);
    }

    #[test]
    fn line_breaks_and_escape_sequences_are_escaped() {
        let cases: [(&[u8], &str); 6] = [
            (b"a\nINFO forged", r"a\nINFO forged"),
            (b"\x1b[2J\r", r"\u{1b}[2J\r"),
            (b"\0\x7f", r"\u{0}\u{7f}"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            ("\u{202e}txt.exe\u{2028}".as_bytes(), r"\u{202e}txt.exe\u{2028}"),
            (b"\xff\xfeok\xc3", r"\xff\xfeok\xc3"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(printable(bytes).to_string(), shown);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(printable("äöü").up_to(5).to_string(), "äö…");
        assert_eq!(printable("äöü").up_to(6).to_string(), "äöü");
        assert_eq!(printable(b"ab\xff\xff").up_to(3).to_string(), r"ab\xff…");
        assert_eq!(printable(&"x".repeat(1 << 20)).to_string().len(), LENGTH_MAX + '…'.len_utf8());
    }
}
