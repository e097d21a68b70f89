//! Reading the notation of transcripts: words, quoted bytes, table values.
//!
//! ```text
//!  word            letters, digits and ! # * + - . / @ _ ~ and the like: anything but blanks and = , : { } [ ] "
//!  "bytes"         with \n \r \t \0 \" \\ \xNN; "x"*4000 repeats; "a"+"b" concatenates
//!  5  5:l  1.5:d   a number of a field type, I (32 bits) if not given; "bytes":x are of type x, else S
//!  true  void  @9  a boolean, the void, a timestamp
//!  [1, 2]  {a: 1}  array and table
//! ```

use super::value::{Table, Value};

/// A place in a line.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// The beginning of `line`.
    pub fn new(line: &'a str) -> Self {
        Self { rest: line.trim() }
    }

    /// Whether nothing but blanks follows.
    pub fn is_at_end(&mut self) -> bool {
        self.skip_blanks();
        self.rest.is_empty()
    }

    /// Takes `token` if it is next.
    pub fn take(&mut self, token: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A word; empty when none is next.
    pub fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let end = self.rest.find(|c: char| c.is_whitespace() || "=,:{}[]\"".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A word or quoted bytes.
    pub fn bytes(&mut self) -> Result<Vec<u8>, String> {
        self.skip_blanks();
        if !self.rest.starts_with('"') {
            return Ok(self.word().as_bytes().to_vec());
        }
        let mut bytes = Vec::new();
        loop {
            let part = self.quoted()?;
            match self.rest.strip_prefix('*') {
                Some(rest) => {
                    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    let (times, rest) = rest.split_at(end);
                    bytes.extend(part.repeat(parse(times)?));
                    self.rest = rest;
                }
                None => bytes.extend(part),
            }
            match self.rest.strip_prefix('+') {
                Some(rest) => self.rest = rest,
                None => return Ok(bytes),
            }
        }
    }

    /// A table: `{key: value, …}`.
    pub fn table(&mut self) -> Result<Table, String> {
        if !self.take('{') {
            return Err(format!("a table expected at: {}", self.rest));
        }
        let mut table = Table::new();
        while !self.take('}') {
            let key = self.bytes()?;
            if !self.take(':') {
                return Err(format!("a colon expected at: {}", self.rest));
            }
            table.push((key, self.value()?));
            self.take(',');
        }
        Ok(table)
    }

    /// A table's value.
    fn value(&mut self) -> Result<Value, String> {
        self.skip_blanks();
        match self.rest.chars().next() {
            Some('"') => {
                let bytes = self.bytes()?;
                match self.rest.strip_prefix(":x") {
                    Some(rest) => {
                        self.rest = rest;
                        Ok(Value::Bytes(bytes))
                    }
                    None => Ok(Value::LongString(bytes)),
                }
            }
            Some('{') => Ok(Value::Table(self.table()?)),
            Some('[') => {
                self.take('[');
                let mut array = Vec::new();
                while !self.take(']') {
                    array.push(self.value()?);
                    self.take(',');
                }
                Ok(Value::Array(array))
            }
            _ => {
                let word = self.word();
                let kind = if self.rest.starts_with(':') {
                    self.take(':');
                    self.word()
                } else {
                    ""
                };
                number(word, kind)
            }
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(bytes);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => bytes.push(b'\n'),
                    Some('r') => bytes.push(b'\r'),
                    Some('t') => bytes.push(b'\t'),
                    Some('0') => bytes.push(0),
                    Some('x') => {
                        let digits: String = chars.by_ref().take(2).map(|(_, c)| c).collect();
                        bytes.push(u8::from_str_radix(&digits, 16).map_err(|error| format!("\\x{digits}: {error}"))?);
                    }
                    Some(c) => bytes.extend(c.to_string().as_bytes()),
                    None => break,
                },
                c => bytes.extend(c.to_string().as_bytes()),
            }
        }
        Err(format!("a quote is not closed: {}", self.rest))
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

fn number(word: &str, kind: &str) -> Result<Value, String> {
    Ok(match (word, kind) {
        ("true", "") => Value::Boolean(true),
        ("false", "") => Value::Boolean(false),
        ("void", "") => Value::Void,
        (word, "") if word.starts_with('@') => Value::Timestamp(parse(&word[1..])?),
        (word, "I" | "") => Value::Long(parse(word)?),
        (word, "b") => Value::Octet(parse(word)?),
        (word, "B") => Value::UnsignedOctet(parse(word)?),
        (word, "s") => Value::Short(parse(word)?),
        (word, "u") => Value::UnsignedShort(parse(word)?),
        (word, "i") => Value::UnsignedLong(parse(word)?),
        (word, "l") => Value::LongLong(parse(word)?),
        (word, "f") => Value::Float(parse(word)?),
        (word, "d") => Value::Double(parse(word)?),
        (word, "D") => {
            let (scale, value) = word.split_once('/').ok_or_else(|| format!("no decimal: {word}"))?;
            Value::Decimal(parse(scale)?, parse(value)?)
        }
        _ => return Err(format!("no value: {word:?} of type {kind:?}")),
    })
}

pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(word: &str) -> Result<T, String> {
    word.parse().map_err(|error| format!("{word:?}: {error}"))
}
