//! Bytes as transcripts show them.

/// Writes bytes in the notation [`Cursor::bytes`](super::Cursor::bytes) reads, always quoted.
pub fn quote(bytes: &[u8]) -> String {
    const LONG: usize = 64;
    if let Some(first) = bytes.first()
        && bytes.len() > LONG
        && bytes.iter().all(|byte| byte == first)
    {
        return format!("{}*{}", quote(&[*first]), bytes.len());
    }
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\0' => text.push_str("\\0"),
                c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}
